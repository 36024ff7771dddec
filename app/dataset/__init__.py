"""`python -m app dataset`: labelled data sets of any size, computed by local processes or by a Ray cluster."""
