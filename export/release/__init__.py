"""The authors' released policies: their key names, their arithmetic."""
