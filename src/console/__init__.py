"""The name under which AI Gateway documents its console."""
