"""Long work: piece by piece on several cores, and how far it is."""
