"""What calls did, added up by hour over all processes: for pages and commands that show where the money goes."""
