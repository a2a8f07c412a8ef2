"""`v2a profile`, `v2a compare`, `v2a sweep`: what each stage costs, how old the data was, and
whether a change made it better or worse."""
