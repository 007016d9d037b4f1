"""How the running agent answers: the operator's command line on one socket, services on the box on another."""
