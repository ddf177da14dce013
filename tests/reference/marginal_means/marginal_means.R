# Means, trends and comparisons of the R package emmeans: writes marginal_means.json beside this script.
# usage: Rscript marginal_means.R
suppressMessages({library(lme4); library(lmerTest); library(emmeans); library(mlmRev); library(jsonlite)})
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
emm_options(lmerTest.limit = 1e5, pbkrtest.limit = 1e5)
tight <- lmerControl(optCtrl = list(ftol_abs = 1e-14, xtol_abs = 1e-12))
tf <- function(d) list(names = names(d), values = lapply(d, function(x) if (is.factor(x)) as.character(x) else as.vector(x)))
quiet <- function(x) suppressMessages(suppressWarnings(x))
comparisons <- function(e, asked) lapply(asked, function(a) {
  k <- quiet(do.call(contrast, c(list(e, method = a$method), a$more)))
  s <- as.data.frame(quiet(summary(k, infer = TRUE, adjust = a$adjust)))
  list(method = a$label, adjust = a$adjust, table = tf(s)) })
ask <- function(method, adjust, label = method, more = list()) list(method = method, adjust = adjust, label = label, more = more)
means <- function(m, specs, by = NULL, at = list(), weights = "equal", ddf = "satterthwaite", asked = list()) {
  e <- quiet(emmeans(m, specs, by = by, at = at, weights = weights, lmer.df = ddf))
  list(specs = as.list(specs), by = by, at = if (length(at)) lapply(at, as.list) else NULL, weights = weights, ddf = ddf,
       table = tf(as.data.frame(e)), contrasts = comparisons(e, asked)) }
trends <- function(m, specs, var, at = list(), ddf = "satterthwaite", asked = list()) {
  e <- quiet(do.call(emtrends, c(list(m, specs, var = var, lmer.df = ddf), if (length(at)) list(at = at))))
  list(specs = as.list(specs), var = var, at = if (length(at)) lapply(at, as.list) else NULL, weights = "equal", ddf = ddf,
       table = tf(as.data.frame(e)), contrasts = comparisons(e, asked)) }
model <- function(formula, m, data, tables, more = list())
  c(list(formula = formula, data = data, theta = as.list(unname(getME(m, "theta"))), tables = tables), more)
fit <- function(formula, d) quiet(lmer(as.formula(formula), d, control = tight))
two <- list(ask("pairwise", "tukey"), ask("pairwise", "holm"))

set.seed(11)
d <- expand.grid(g = paste0("g", 1:12), r = 1:5)
d$a <- factor(sample(c("low", "mid", "high"), nrow(d), TRUE, prob = c(.5, .3, .2)), c("low", "mid", "high"))
d$b <- factor(sample(c("u", "v"), nrow(d), TRUE, prob = c(.65, .35)))
d$x <- round(rnorm(nrow(d), 4, 1.5), 3); d$two <- sample(c(2, 5), nrow(d), TRUE); d$day <- sample(c(1, 2, 4), nrow(d), TRUE)
d$o <- round(runif(nrow(d), 0, 2), 3); d$w <- round(runif(nrow(d), .5, 2), 3)
d$y <- round(as.integer(d$a) + .6 * d$x * as.integer(d$b) + .2 * d$two + rnorm(12)[as.integer(d$g)] + rnorm(nrow(d)), 3)
file <- tempfile(); write.csv(d, file, row.names = FALSE)
e <- subset(d, !(a == "high" & b == "v"))

sleep <- fit("Reaction ~ Days + (Days | Subject)", lme4::sleepstudy)
ck <- fit("angle ~ recipe * temperature + (1 | recipe:replicate)", lme4::cake)
kg <- subset(star, gr == "K"); k <- fit("read ~ cltype + sx + ses + (1 | sch/tch)", kg)
unbalanced <- "y ~ a * b + x + (1 | g)"; u <- fit(unbalanced, d)
slopes <- "y ~ b * x + I(x^2) + two + (1 | g)"; s <- fit(slopes, d)
made <- "y ~ factor(day) + b * log(x) + two + offset(o) + (1 | g)"; mk <- fit(made, d)
curved <- "y ~ b * log(x) + (1 | g)"; cu <- fit(curved, d)
heavy <- "y ~ a + b * x + two + (1 | g)"; h <- quiet(lmer(y ~ a + b * x + two + (1 | g), d, weights = w, control = tight))
hole <- "y ~ a * b + x + (1 | g)"; ho <- fit(hole, e)
plain <- "y ~ a + b + x + (1 | g)"; pl <- fit(plain, e)
custom <- list(`first against rest` = c(1, -.5, -.5), `last step` = c(0, -1, 1))

out <- list(
  versions = list(R = R.version.string, emmeans = as.character(packageVersion("emmeans")), lmerTest = as.character(packageVersion("lmerTest"))),
  csv = readLines(file), models = list(
  model("Reaction ~ Days + (Days | Subject)", sleep, "sleepstudy", list(
    means(sleep, "Days"), means(sleep, "Days", at = list(Days = c(0, 5)), asked = two),
    means(sleep, "Days", at = list(Days = c(0, 2, 9)), ddf = "kenward-roger", asked = two))),
  model("angle ~ recipe * temperature + (1 | recipe:replicate)", ck, "cake", list(
    means(ck, "recipe", asked = c(two, list(ask("revpairwise", "bonferroni"), ask("eff", "fdr"), ask(custom, "none", "custom")))),
    means(ck, "temperature", ddf = "kenward-roger", asked = list(ask("poly", "none"), ask("trt.vs.ctrl", "sidak"), ask("trt.vs.ctrl", "mvt"), ask("consec", "bonferroni"), ask("pairwise", "tukey"), ask("pairwise", "scheffe"))),
    means(ck, "recipe", by = "temperature", asked = two),
    means(ck, c("recipe", "temperature"), at = list(temperature = c("185", "225")), ddf = "kenward-roger", asked = two))),
  model("read ~ cltype + sx + ses + (1 | sch/tch)", k, "star_k", list(
    means(k, "cltype", asked = two), means(k, "cltype", weights = "proportional", asked = list(ask("trt.vs.ctrl", "mvt"))),
    means(k, c("cltype", "sx"), weights = "cells"))),
  model(unbalanced, u, "drawn", list(
    means(u, "a", asked = two), means(u, "a", weights = "proportional"), means(u, "a", weights = "cells"),
    means(u, "b", ddf = "kenward-roger", asked = two), means(u, c("a", "b"), ddf = "kenward-roger", asked = two),
    means(u, "a", by = "b", at = list(x = 3), asked = two), means(u, "1"), means(u, "b", weights = "proportional"))),
  model(slopes, s, "drawn", list(
    trends(s, "b", "x", asked = two), trends(s, "b", "x", at = list(x = 2), ddf = "kenward-roger", asked = two),
    means(s, c("b", "x"), at = list(x = c(1, 2)), asked = two), means(s, "two"), means(s, "b", weights = "cells"))),
  model(made, mk, "drawn", list(
    means(mk, "day", asked = two), means(mk, "b", asked = list(ask("pairwise", "tukey"))))),
  model(curved, cu, "drawn", list(trends(cu, "b", "x"), trends(cu, "b", "x", at = list(x = 2)))),
  model(heavy, h, "drawn", list(means(h, "a", weights = "proportional", asked = two), means(h, "b", weights = "cells")),
        list(weights = "w")),
  model(hole, ho, "hole", list(
    means(ho, "a", asked = two), means(ho, c("a", "b"), asked = two), means(ho, "a", weights = "cells"), means(ho, "a", by = "b", asked = two))),
  model(plain, pl, "hole", list(means(pl, c("a", "b"), weights = "cells", asked = two)))))
write(toJSON(out, digits = 10, auto_unbox = TRUE, na = "null", null = "null"), file.path(dirname(script), "marginal_means.json"))
