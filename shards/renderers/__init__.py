"""Images drawn from known factors: every row of the study can be trained and measured without a download.

Each file holds one renderer, a source like any other; they are named what they are, never by the name of the data set
that they stand in for.
"""
