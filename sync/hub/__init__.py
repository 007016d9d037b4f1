"""The centre's command line and, in front of the central database, its HTTPS face."""
