"""The authors' released policies, with their key names and their arithmetic."""
