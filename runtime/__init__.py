"""The runtime: workers, mailboxes and engines that move a robot by a bundle."""
