"""The demonstration behind `edge-agent demo`: its parts, its course, what it shows, and its final account."""
