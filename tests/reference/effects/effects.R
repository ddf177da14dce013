# Effects and back-transformed means of the R packages emmeans and ggeffects: writes effects.json beside this script.
# usage: Rscript effects.R
suppressMessages({library(lme4); library(lmerTest); library(emmeans); library(ggeffects); library(jsonlite)})
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
emm_options(lmerTest.limit = 1e5, pbkrtest.limit = 1e5)
tight <- lmerControl(optCtrl = list(ftol_abs = 1e-14, xtol_abs = 1e-12))
quiet <- function(x) suppressMessages(suppressWarnings(x))
tf <- function(d) list(names = names(d), values = lapply(d, function(x) if (is.factor(x)) as.character(x) else as.vector(x)))
# The formula stands in the call, where emmeans looks for the transformation.
fit <- function(formula, d) quiet(eval(bquote(lmer(.(as.formula(formula)), d, control = tight))))

set.seed(23)
d <- expand.grid(g = paste0("g", 1:14), r = 1:5)
d$a <- factor(sample(c("low", "mid", "high"), nrow(d), TRUE, prob = c(.5, .3, .2)), c("low", "mid", "high"))
d$x <- round(runif(nrow(d), 0, 8), 2)
d$z <- round(rnorm(nrow(d), 10, 2), 2)
d$y <- round(exp(1 + .25 * as.integer(d$a) + .08 * d$x + rnorm(14, sd = .3)[as.integer(d$g)] + rnorm(nrow(d), sd = .25)), 3)
d$p <- round(plogis(-.4 + .5 * as.integer(d$a) - .1 * d$x + rnorm(14, sd = .4)[as.integer(d$g)] + rnorm(nrow(d), sd = .4)), 4)
file <- tempfile(); write.csv(d, file, row.names = FALSE)

# --- effects over grids
curve <- function(m, formula, data, terms, variables, at, weights = "equal") {
  e <- quiet(emmeans(m, variables, at = at, weights = weights, lmer.df = "satterthwaite"))
  gg <- NULL
  if (!is.null(terms)) gg <- lapply(list(ggemmeans = ggemmeans, ggpredict = ggpredict), function(f) {
    k <- as.data.frame(quiet(f(m, terms))); tf(k[, c("x", "group", "predicted", "std.error")]) })
  list(formula = formula, data = data, theta = as.list(unname(getME(m, "theta"))), variables = as.list(variables), at = lapply(at, as.list), weights = weights,
       table = tf(as.data.frame(e)), ggeffects = gg)
}
f1 <- "Reaction ~ Days + (Days | Subject)"; f2 <- "distance ~ age * Sex + (age | Subject)"
f3 <- "y ~ a * x + z + (1 | g)"; f4 <- "y ~ poly(x, 3) * a + (1 | g)"
ortho <- as.data.frame(nlme::Orthodont); ortho$Subject <- factor(as.character(ortho$Subject))
m1 <- fit(f1, lme4::sleepstudy); m2 <- fit(f2, ortho); m3 <- fit(f3, d); m4 <- fit(f4, d)
curves <- list(
  curve(m1, f1, "sleepstudy", "Days [0,2.5,5,9]", "Days", list(Days = c(0, 2.5, 5, 9))),
  curve(m2, f2, "orthodont", c("age [8,9.5,14]", "Sex"), c("age", "Sex"), list(age = c(8, 9.5, 14))),
  curve(m3, f3, "csv", NULL, "x", list(x = c(0, 1.3, 7))),
  curve(m3, f3, "csv", NULL, "x", list(x = c(0, 1.3, 7)), "proportional"),
  curve(m4, f4, "csv", c("x [.5,2,4.25,7.5]", "a"), c("x", "a"), list(x = c(.5, 2, 4.25, 7.5))))

# --- transformed responses
back <- function(formula, tran = NULL, sigma = NULL, data = "csv", specs = "a", ddf = "satterthwaite") {
  m <- fit(formula, if (data == "csv") d else lme4::cake)
  e <- quiet(emmeans(m, specs, lmer.df = ddf))
  if (!is.null(tran)) e <- update(e, tran = tran)
  s <- if (is.null(sigma)) NULL else tf(as.data.frame(quiet(summary(e, type = "response", bias.adjust = TRUE, sigma = sigma))))
  k <- as.data.frame(quiet(summary(pairs(e), type = "response", infer = TRUE)))
  list(formula = formula, data = data, specs = as.list(specs), ddf = ddf, sigma = sigma, means = tf(as.data.frame(quiet(summary(e, type = "response")))),
       adjusted = s, pairs = tf(k))
}
total <- function(formula) { m <- fit(formula, d); sqrt(sum(as.data.frame(VarCorr(m))$vcov)) }
right <- "~ a + x + (1 | g)"; of <- function(left) paste(left, right)
transformed <- list(
  back(of("log(y)"), sigma = .3), back(of("log(y)"), sigma = total(of("log(y)"))), back(of("log(y + 1)"), sigma = .25),
  back(of("log1p(y)"), sigma = .25), back(of("log10(y)"), sigma = .1), back(of("log2(y)"), sigma = .4),
  back(of("sqrt(y)"), sigma = .5), back(of("I(1/y)"), tran = "inverse", sigma = .03),
  back(of("I(y^0.25)"), tran = make.tran("power", .25), sigma = .1), back(of("I(y^2)"), tran = make.tran("power", 2), sigma = 4),
  back(of("scale(y)")), back(of("log(p/(1 - p))"), tran = "logit", sigma = .5), back(of("asin(sqrt(p))"), tran = "asin.sqrt", sigma = .1),
  back("log(angle) ~ recipe * temperature + (1 | recipe:replicate)", data = "cake", specs = "temperature", ddf = "kenward-roger", sigma = .2))

out <- list(versions = list(R = R.version.string, emmeans = as.character(packageVersion("emmeans")), ggeffects = as.character(packageVersion("ggeffects")), lmerTest = as.character(packageVersion("lmerTest"))),
  csv = readLines(file), total = total(of("log(y)")), curves = curves, transformed = transformed)
write(toJSON(out, auto_unbox = TRUE, digits = I(15), na = "null", null = "null", pretty = FALSE), file.path(dirname(script), "effects.json"))
