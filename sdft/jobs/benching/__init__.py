"""What `sdft bench` and the measurements on a GPU share. Brings torch."""
