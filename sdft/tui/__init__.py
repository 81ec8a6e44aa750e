"""The screens: `sdft watch` and `sdft wizard`. Nothing here imports torch or the jobs."""
