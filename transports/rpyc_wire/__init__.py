"""What a connection of the RPyC wire is made of, from the socket up."""
