"""`sdft report`: one HTML file that shows a run. `page` writes it, `parts` fills its tables,
`charts` and `pictures` give what the page's own script draws."""
