"""Raw material: the documents and pictures of a source in one form, whatever it was, and how it is written."""
