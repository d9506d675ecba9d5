"""What `edgeexit convert` takes: one file for each kind of source."""
