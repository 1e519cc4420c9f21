"""The operator's tools: fsck, backup, restore, import, export."""
