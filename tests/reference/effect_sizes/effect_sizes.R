# Effect sizes of the R packages effectsize, parameters and emmeans: writes effect_sizes.json beside this script.
# usage: Rscript effect_sizes.R
suppressMessages({library(lme4); library(lmerTest); library(emmeans); library(effectsize); library(parameters); library(jsonlite)})
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
tight <- lmerControl(optCtrl = list(ftol_abs = 1e-14, xtol_abs = 1e-12))
quiet <- function(x) suppressMessages(suppressWarnings(x))

set.seed(11)
d <- expand.grid(r = 1:5, g = paste0("g", 1:14))
d$a <- factor(sample(c("low", "mid", "high"), nrow(d), TRUE, prob = c(.5, .3, .2)), c("low", "mid", "high"))
d$between <- factor(ifelse(as.integer(d$g) %% 3 == 0, "new", "old"), c("old", "new"))
d$z <- round(rnorm(14), 3)[as.integer(d$g)]
d$x <- round(rnorm(nrow(d), 4, 1.5), 3)
d$w <- round(runif(nrow(d), .5, 2), 3)
d$y <- round(as.integer(d$a) + .6 * d$x + .4 * d$z + .7 * (d$between == "new") + .8 * rnorm(14)[as.integer(d$g)] + rnorm(nrow(d)), 3)
file <- tempfile(); write.csv(d, file, row.names = FALSE)

std <- function(m, method, ...) {
  p <- quiet(standardize_parameters(m, method = method, ...))
  list(method = method, options = list(...), term = p$Parameter, estimate = p$Std_Coefficient, se = attr(p, "standard_error")) }
pve <- function(m) {
  a <- anova(m)
  two <- function(f, ...) as.list(as.data.frame(f(a$`F value`, a$NumDF, a$DenDF, ...)))
  e <- as.data.frame(quiet(eta_squared(m, alternative = "two.sided")))
  list(terms = rownames(a), F = a$`F value`, q = a$NumDF, df = a$DenDF, eta_of_model = e$Eta2_partial,
       eta = two(F_to_eta2, alternative = "two.sided"), eta_greater = two(F_to_eta2, ci = .9),
       omega = two(F_to_omega2, alternative = "two.sided"), epsilon = two(F_to_epsilon2, alternative = "two.sided")) }
d_of <- function(m, specs, sigma, edf, ddf = "satterthwaite") {
  e <- quiet(emmeans(m, specs, lmer.df = ddf))
  s <- as.data.frame(quiet(eff_size(e, sigma = sigma, edf = edf)))
  pairs <- as.data.frame(summary(quiet(pairs(e)), infer = TRUE, adjust = "none"))
  list(specs = specs, sigma = sigma, edf = edf, ddf = ddf, contrast = s$contrast, estimate = s$effect.size, se = s$SE, df = s$df,
       pair_df = pairs$df, low = s$lower.CL, high = s$upper.CL) }
model <- function(formula, weights = FALSE) {
  # With the formula in the call, which a refit reads.
  m <- quiet(eval(if (weights) bquote(lmer(.(as.formula(formula)), d, weights = w, control = tight)) else bquote(lmer(.(as.formula(formula)), d, control = tight))))
  list(m = m, head = list(formula = formula, weights = weights, theta = as.list(unname(getME(m, "theta"))))) }

one <- model("y ~ a + x + z + between + (1 | g)")
two <- model("y ~ a * x + z + (1 | g)")
heavy <- model("y ~ a + x + z + (1 | g)", TRUE)
all_std <- function(m, pseudo = TRUE) c(
  list(std(m, "refit"), std(m, "refit", two_sd = TRUE), std(m, "basic"), std(m, "basic", two_sd = TRUE),
       std(m, "basic", include_response = FALSE)),
  if (pseudo) list(std(m, "pseudo"), std(m, "pseudo", two_sd = TRUE)))
out <- list(
  versions = list(R = R.version.string, effectsize = as.character(packageVersion("effectsize")), parameters = as.character(packageVersion("parameters")),
                  emmeans = as.character(packageVersion("emmeans")), lmerTest = as.character(packageVersion("lmerTest"))),
  csv = readLines(file), models = list(
    c(one$head, list(standardized = all_std(one$m), anova = pve(one$m),
      d = list(d_of(one$m, "a", 1.5, 40), d_of(one$m, "a", sigma(one$m), 53), d_of(one$m, "between", 2, 12, "kenward-roger")))),
    c(two$head, list(standardized = all_std(two$m), anova = pve(two$m), d = list(d_of(two$m, "a", 1.2, 30)))),
    c(heavy$head, list(standardized = all_std(heavy$m, FALSE), anova = pve(heavy$m), d = list()))))
write(toJSON(out, digits = 12, auto_unbox = TRUE, na = "null"), file.path(dirname(script), "effect_sizes.json"))
