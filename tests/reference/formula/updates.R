# What R's update.formula makes of generated formulas and updates. Writes updates.json.
#
#   Rscript updates.R
#
# Left out: taking offsets away, which R 4.2 does not do; (1 | g) beside (1 | g/h), of which R does not
# know that it is a part; and crossing a formula of the intercept alone, which R makes nothing of. Where an update crosses the dot, R is given the fixed part alone: lme4's formulas treat a
# random-effects term as one more variable, and `(1 | g):z` is no term of a model.

library(jsonlite)
set.seed(20)

pick <- function(x) sample(x, 1)
responses <- c("y", "log(y)", "post - pre", "y/n", "-y", "a^b", "sqrt(y) + 1", "`a~b`", "`odd name`")
fixed <- c("x", "x + z", "a * b", "a + a * b", "x + z + a:b", "(a + b + x)^2", "a/b", "0 + x", "x - 1",
           "x + offset(o)", "1", "x - x + z", "a * b - a:b", "`my.x` + z", "log(x) + I(x^2)")
bars <- c("(1 | g)", "(x | g)", "(1 | g) + (1 | h)", "(1 | g/h)", "(x | g) + (1 | h)", "(0 + x | g)")
lefts <- c(".", ".", ".", "", "log(.)", ". / 10", "2 * .", "-.", ". - pre", "10 - .", ".^2", "I(. / 2)", "w",
           "`b~c`", "2^.", "./.")
added <- c("w", "x", "z", "a:b", "log(x)", "I(x^2)", "0", "1", "`my.x`", "offset(o)", "(x + w)", "(1 | g)",
           "(1 | k)", "(x | g)")
crossing <- c("* z", ":z", "* (x + w)", "^2", "/w", ":(a + b)")

old_of <- function() {
  f <- pick(fixed)
  b <- pick(bars)
  right <- if (runif(1) < .8) paste(f, "+", b) else paste(b, "+", f)
  list(response = pick(responses), right = right, fixed = f)
}
additive <- function() {
  text <- if (runif(1) < .85) "." else paste(pick(c("w", "x", "0")), "+ .")
  for (i in seq_len(sample(0:3, 1))) {
    what <- pick(added)
    text <- paste(text, if (what == "offset(o)") "+" else pick(c("+", "-", "-")), what)
  }
  text
}
crossed <- function() {
  text <- paste0(if (runif(1) < .8) "." else "(. + w)", " ", pick(crossing))
  for (i in seq_len(sample(0:1, 1))) text <- paste(text, pick(c("+", "-")), pick(added[1:9]))
  text
}
described <- function(formula) {
  t <- terms(formula, allowDotAsName = TRUE)
  labels <- attr(t, "term.labels")
  bar <- grepl("|", labels, fixed = TRUE)
  offsets <- vapply(as.list(attr(t, "variables"))[-1][attr(t, "offset")],
                    function(v) deparse(v[[2]]), "")
  list(response = paste(deparse(formula[[2]], width.cutoff = 500), collapse = ""), fixed = labels[!bar],
       random = labels[bar], intercept = attr(t, "intercept"), offsets = offsets)
}

cases <- list()
for (i in 1:300) {
  repeat {
    old <- old_of()
    plain <- additive()
    if (!(grepl("g/h", old$right, fixed = TRUE) && grepl("(1 | g)", plain, fixed = TRUE))) break
  }
  cross <- i %% 3 == 0 && old$fixed != "1"
  left <- pick(lefts)
  new <- trimws(paste(left, "~", if (cross) crossed() else plain))
  right <- if (cross) old$fixed else old$right
  result <- update.formula(as.formula(paste(old$response, "~", right)), as.formula(new))
  cases[[i]] <- c(list(old = paste(old$response, "~", old$right), new = new, crossed = cross),
                  described(result))
}
write(toJSON(list(R = R.version.string, cases = cases), auto_unbox = FALSE, pretty = FALSE), "updates.json")
