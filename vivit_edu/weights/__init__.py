"""Other people's weights: the files they come in, and how other libraries name what is in them."""
