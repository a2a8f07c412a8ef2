"""`v2a profile`: which stage costs what, how old the data was, and did it get better or worse."""
