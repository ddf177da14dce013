# Joint tests, interaction contrasts, adjustment across groups (R's emmeans), codings (MASS, stats) and independent effects of the
# levels of a factor (lme4): writes joint_tests.json beside this script.
# usage: Rscript joint_tests.R
suppressMessages({library(lme4); library(lmerTest); library(emmeans); library(jsonlite)})
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
emm_options(lmerTest.limit = 1e5, pbkrtest.limit = 1e5)
tight <- lmerControl(optCtrl = list(ftol_abs = 1e-14, xtol_abs = 1e-12))
quiet <- function(x) suppressMessages(suppressWarnings(x))
tf <- function(d) { d <- as.data.frame(d); list(names = names(d), values = lapply(d, function(x) if (is.factor(x)) as.character(x) else as.vector(x))) }

set.seed(5)
d <- expand.grid(r = 1:6, g = paste0("g", 1:12))
d$a <- factor(sample(c("low", "mid", "high"), nrow(d), TRUE, prob = c(.5, .3, .2)), c("low", "mid", "high"))
d$b <- factor(sample(c("u", "v"), nrow(d), TRUE, prob = c(.65, .35)))
d$c <- factor(sample(c("p", "q", "s", "t"), nrow(d), TRUE))
d$x <- round(rnorm(nrow(d), 4, 1.5), 3)
d$y <- round(as.integer(d$a) + .6 * d$x * as.integer(d$b) + rnorm(12)[as.integer(d$g)] + rnorm(nrow(d)), 3)
d$strain <- factor(paste0(d$a, 1 + (d$r > 3)))
file <- tempfile(); write.csv(d, file, row.names = FALSE)
e <- subset(d, !(a == "high" & b == "v"))

# F as emmeans computes it, which it prints with three decimals; the df are of the same row.
joint <- function(m, by = NULL, ddf = "satterthwaite", at = NULL) {
  args <- list(m, by = by, lmer.df = ddf); if (!is.null(at)) args$at <- at
  list(by = by, ddf = ddf, at = if (is.null(at)) NULL else lapply(at, as.list), table = tf(quiet(do.call(joint_tests, c(args, showconf = FALSE))))) }
inter <- function(m, specs, interaction, by = NULL, ddf = "satterthwaite") {
  k <- contrast(quiet(emmeans(m, specs, by = by, lmer.df = ddf)), interaction = interaction)
  list(specs = specs, by = by, interaction = as.list(interaction), ddf = ddf, table = tf(summary(k, infer = TRUE))) }
cross <- function(m, specs, by, adjust, over) {
  k <- contrast(quiet(emmeans(m, specs, by = by)), "pairwise")
  list(specs = specs, by = by, adjust = adjust, cross = over, table = tf(summary(k, adjust = adjust, cross.adjust = over))) }
model <- function(formula, data, m, parts) c(list(formula = formula, data = data, theta = as.list(unname(getME(m, "theta")))), parts)
fit <- function(formula, data) quiet(lmer(as.formula(formula), data, control = tight))

cake <- "angle ~ recipe * temperature + (1 | recipe:replicate)"; ck <- fit(cake, lme4::cake)
full <- "y ~ a * b * x + c + (1 | g)"; fu <- fit(full, d)
hole <- "y ~ a * b + x + (1 | g)"; ho <- fit(hole, e)
strains <- "y ~ b + a + strain + (1 | g)"; st <- fit(strains, d)

codings <- lapply(2:5, function(k) list(k = k, sdif = MASS::contr.sdif(k), SAS = contr.SAS(k), helmert = contr.helmert(k)))
recoded <- lapply(c("contr.sdif", "contr.SAS"), function(coding) {
  z <- d; contrasts(z$a) <- if (coding == "contr.sdif") MASS::contr.sdif(3) else contr.SAS(3)
  m <- fit("y ~ a + x + (1 | g)", z)
  list(coding = coding, names = names(fixef(m)), fixef = unname(fixef(m)), theta = as.list(unname(getME(m, "theta")))) })

z <- d; z$alow <- +(d$a == "low"); z$amid <- +(d$a == "mid"); z$ahigh <- +(d$a == "high")
apart <- fit("y ~ x + (1 | g) + (0 + amid | g) + (0 + ahigh | g)", z)
whole <- fit("y ~ x + (0 + alow | g) + (0 + amid | g) + (0 + ahigh | g)", z)
wart <- fit("y ~ x + (1 | g) + (0 + a | g)", d)

out <- list(
  versions = list(R = R.version.string, emmeans = as.character(packageVersion("emmeans")), lme4 = as.character(packageVersion("lme4"))),
  csv = readLines(file), codings = codings, recoded = recoded,
  apart = list(intercept = as.numeric(REMLcrit(apart)), levels = as.numeric(REMLcrit(whole)), lme4 = as.numeric(REMLcrit(wart))),
  models = list(
    model(cake, "cake", ck, list(
      joint = list(joint(ck), joint(ck, by = "recipe"), joint(ck, ddf = "kenward-roger")),
      interaction = list(inter(ck, c("recipe", "temperature"), "pairwise"), inter(ck, c("recipe", "temperature"), c("pairwise", "poly"), ddf = "kenward-roger"),
                         inter(ck, c("recipe", "temperature"), c("trt.vs.ctrl", "consec"))),
      cross = list(cross(ck, "recipe", "temperature", "tukey", "bonferroni"), cross(ck, "recipe", "temperature", "none", "holm"),
                   cross(ck, "recipe", "temperature", "holm", "fdr"), cross(ck, "recipe", "temperature", "none", "sidak")))),
    model(full, "drawn", fu, list(
      joint = list(joint(fu), joint(fu, by = "b"), joint(fu, by = "a", ddf = "kenward-roger"), joint(fu, by = c("a", "b")), joint(fu, at = list(x = c(2, 3)))),
      interaction = list(inter(fu, c("a", "b"), c("consec", "pairwise"), by = "c"), inter(fu, c("a", "b", "c"), "consec")), cross = list())),
    model(hole, "hole", ho, list(joint = list(joint(ho)), interaction = list(), cross = list())),
    model(strains, "drawn", st, list(joint = list(joint(st)), interaction = list(), cross = list()))))
write(toJSON(out, digits = 10, auto_unbox = TRUE, na = "null", null = "null"), file.path(dirname(script), "joint_tests.json"))
