"""Raw data: the documents and images of any source in one format, and how it is written."""
