# Writes display.json: what lme4 and lmerTest print, with the numbers they print it from.
# Run with R, lme4, lmerTest and jsonlite:  Rscript display.R
suppressMessages({library(lmerTest); library(jsonlite)})
options(width = 80, digits = 7, useFancyQuotes = FALSE)

cases <- list()

record <- function(name, model) {
  s <- summary(model)
  vc <- VarCorr(model)
  printed <- suppressMessages(capture.output(print(s)))
  cases[[name]] <<- list(
    text = printed, varcorr_text = capture.output(print(vc)),
    formula = paste(deparse(model@call$formula, width.cutoff = 500), collapse = " "),
    data_name = deparse(model@call$data), reml = isREML(model),
    criterion = as.list(s$AICtab), quantiles = unname(quantile(s$residuals)),
    varcorr = lapply(names(vc), function(g) list(
      group = g, names = I(colnames(vc[[g]])), std_devs = I(unname(attr(vc[[g]], "stddev"))),
      correlation = if (ncol(vc[[g]]) > 1) unname(attr(vc[[g]], "correlation"))
    )),
    residual = sigma(model), nobs = nobs(model), ngroups = as.list(s$ngrps),
    tested = inherits(model, "lmerModLmerTest"),
    coefficients = list(
      names = I(rownames(s$coefficients)), columns = colnames(s$coefficients),
      values = unname(s$coefficients)
    ),
    correlation = unname(cov2cor(as.matrix(vcov(model))))
  )
}

record("two correlated columns", lmer(Reaction ~ Days + (Days | Subject), sleepstudy))
record("uncorrelated columns, ML", lmer(Reaction ~ Days + (Days || Subject), sleepstudy, REML = FALSE))
record("intercept only", lmer(Reaction ~ 1 + (1 | Subject), sleepstudy))
record("no tests, ML", lme4::lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE))
record("no tests, REML", lme4::lmer(Reaction ~ Days + (Days | Subject), sleepstudy))
record("nested", lmer(strength ~ 1 + (1 | batch/cask), Pastes))
record("crossed", lmer(diameter ~ 1 + (1 | plate) + (1 | sample), Penicillin))
record("many coefficients", lmer(angle ~ recipe * temperature + (1 | recipe:replicate), cake))
record("twelve coefficients", lmer(angle ~ recipe * temp + temperature + (1 | recipe:replicate), cake))
record("zero variance", lmer(Yield ~ 1 + (1 | Batch), Dyestuff2))

set.seed(20)
d <- data.frame(school = factor(rep(1:20, each = 20)), class = factor(rep(1:80, each = 5)),
                x = rnorm(400), z = rnorm(400))
b <- matrix(rnorm(60), 20)
d$y <- 2 + d$x + b[d$school, 1] + b[d$school, 2] * d$x + b[d$school, 3] * d$z + rnorm(400)
d$cltype <- factor(sample(c("small", "regular", "reg+A"), 400, TRUE), levels = c("small", "regular", "reg+A"))
d$noise <- rnorm(400)
d$some_very_long_variable_name <- 2 * d$x
d$tiny <- d$x * 1e5
d$huge <- d$y * 1e4
record("three correlated columns", lmer(y ~ x + z + (x + z | school), d))
record("long names", lmer(y ~ some_very_long_variable_name + z + (1 | school), d))
record("several terms", lmer(y ~ cltype + (1 | school:class) + (x | school), d))
record("nothing significant", lmer(noise ~ z + (1 | school), d))
record("scales far apart", lmer(y ~ tiny + z + (1 | school), d))
record("large numbers", lmer(huge ~ cltype * x + (x | school), d))
record("interactions", lmer(y ~ cltype * x + poly(z, 2) + (1 | school/class), d))

abbreviated <- c(
  "(Intercept)", "Days", "cltypereg+A", "recipeB:temperature^4", "some_very_long_variable_name",
  "temperature.L", "sxF", "I(x^2)", "log(income)", "recipeB", "recipeC", "treatmentplacebo",
  "Machine B", "AAAAAAAAAAAA", "aeiouaeiouaeiou", "poly(age, 2)1", "SexFemale:age",
  "factor(time)2000", "scale(x)", "Xylophones", "ns(age, df = 3)1", "studage.L", "lectage^4",
  "bbbbbb bbbbbb", "a.b.c.d.e.f.g", "oneTwo three", "weekend day off", "eeeeeee x"
)
alone <- function(minlength) vapply(abbreviated, function(s) unname(abbreviate(s, minlength)), "", USE.NAMES = FALSE)
together <- c("factor(time)2000", "factor(time)2001", "aaaaaaaaab1", "aaaaaaaaac1", "aaaaaaaaab12", "Days")

numbers <- list(
  c(1, 10, 100), 1e5, 123456.7, c(1e-5, 1), c(1e-10, 1e5), c(1.234e-05, 123), c(99.9996, 1),
  9.99996, c(-1.5, 3), 1e100, 1e5 + 0.1, 1234567.8, 0.1 + 0.2, 1/3, c(1e15, 1), 0, c(0, 1e-20),
  c(-0.00012, 12), c(0.5, 0.25, 0.125), c(123.456, 0.001), c(-1e-7, 1e-6)
)
p_values <- list(
  c(1e-20, 0.5, 0.04), c(1e-20, 1e-18), c(1e-20, 0.00012345, 0.7), c(0.240451, 3.26e-6, 1e-17),
  c(0.05, 0.01), 0.99999, c(1e-4, 9.9e-5), 3e-300, c(1, 0)
)

write_json(list(
  cases = cases,
  abbreviate = list(names = abbreviated, short = alone(6), long = alone(11),
                    together = together, together_short = unname(abbreviate(together, 6))),
  numbers = lapply(numbers, function(x) list(values = I(x), digits7 = I(format(x)), digits4 = I(format(x, digits = 4)),
                                             decimals3 = I(format(x, digits = 2, nsmall = 3)))),
  p_values = lapply(p_values, function(x) list(values = I(x), texts = I(format.pval(x, digits = 3))))
), "display.json", digits = I(15), auto_unbox = TRUE, null = "null")
