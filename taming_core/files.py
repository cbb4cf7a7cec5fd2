"""Files and folders that are written whole or not at all, and names that any file system takes."""
