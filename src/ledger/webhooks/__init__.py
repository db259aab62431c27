"""Who is told of events, and where: subscribers, their addresses and their secrets."""
