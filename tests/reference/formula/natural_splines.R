# Bases of natural splines by R. Writes natural_splines.json.
#
#   Rscript natural_splines.R

library(jsonlite)
library(splines)
set.seed(4)
x <- round(runif(12, 0, 10), 3)
new <- c(-3, 0, 2.5, 9.9, 14)
calls <- c("ns(x, 3)", "ns(x, df = 4)", "ns(x, knots = c(2, 5, 7))", "ns(x, df = 3, intercept = TRUE)",
           "ns(x, knots = 4, Boundary.knots = c(1, 8))", "ns(x)", "ns(x, df = 3, Boundary.knots = c(-2, 12))")
bases <- lapply(calls, function(call) {
  basis <- eval(parse(text = call))
  list(call = call, fitted = unclass(basis)[, , drop = FALSE], predicted = unclass(predict(basis, new))[, , drop = FALSE])
})
write(toJSON(list(R = R.version.string, x = x, new = new, bases = bases), digits = 15), "natural_splines.json")
