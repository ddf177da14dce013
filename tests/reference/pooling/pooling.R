# Pooled fits of R's mice (pool on lists of lmer fits) and joint tests of mitml (D1): writes pooling.json beside this script.
# usage: Rscript pooling.R
suppressMessages({library(lme4); library(lmerTest); library(broom.mixed); library(mice); library(mitml); library(jsonlite)})
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
tight <- lmerControl(optCtrl = list(ftol_abs = 1e-14, xtol_abs = 1e-12), calc.derivs = FALSE)

set.seed(20)
d <- expand.grid(r = 1:6, g = paste0("g", 1:16))
d$arm <- factor(c("a", "b", "c", "b")[1 + as.integer(factor(d$g)) %% 4])
d$x <- round(rnorm(nrow(d), rep(rnorm(16), each = 6)), 3)
d$y <- round(2 + .5 * d$x + .4 * (d$arm == "c") + rep(rnorm(16), each = 6) + rnorm(nrow(d)), 3)
gone <- runif(nrow(d)) < plogis(-1.2 + .6 * d$y - 1)
d$x[gone] <- NA
imp <- mice(d, m = 6, method = "norm", seed = 3, printFlag = FALSE)
completed <- lapply(1:6, function(i) { e <- complete(imp, i); e$x <- round(e$x, 3); e })
file <- tempfile(); write.csv(d, file, row.names = FALSE)

answers <- function(formula, reml, tested) {
  fits <- lapply(completed, function(e) lme4::lmer(as.formula(formula), e, REML = reml, control = tight))
  tests <- lapply(completed, function(e) lmerTest::lmer(as.formula(formula), e, REML = reml, control = tight))
  names <- names(fixef(fits[[1]]))
  ours <- lapply(list(default = NULL, infinite = Inf, twenty = 20), function(dfcom) {
    p <- as.data.frame(pool(as.mira(fits), dfcom = dfcom)$pooled)
    p <- p[match(names, p$term), ]
    s <- summary(pool(as.mira(fits), dfcom = dfcom), conf.int = TRUE, conf.level = .9)
    s <- s[match(names, s$term), ]
    c(as.list(p[c("estimate", "ubar", "b", "t", "dfcom", "df", "riv", "lambda", "fmi")]),
      list(p = s$p.value, low = s$`5 %`, high = s$`95 %`)) })
  joint <- lapply(tested, function(t) lapply(list(infinite = NULL, twenty = 20, many = 88), function(df) {
    r <- testConstraints(as.mitml.result(fits), constraints = t, df.com = df)$test
    as.list(r[1, ]) }))
  satterthwaite <- lapply(tests, function(f) unname(coef(summary(f))[, "df"]))
  list(formula = formula, reml = reml, names = names, theta = lapply(fits, function(f) as.list(unname(getME(f, "theta")))),
       pooled = ours, joint = joint, tested = tested, satterthwaite = satterthwaite) }

out <- list(
  versions = list(R = R.version.string, mice = as.character(packageVersion("mice")), mitml = as.character(packageVersion("mitml")),
                  lme4 = as.character(packageVersion("lme4"))),
  csv = readLines(file), imputed = lapply(completed, function(e) e$x[gone]),
  models = list(
    answers("y ~ x + arm + (1 | g)", TRUE, list(c("armb", "armc"), c("x", "armb", "armc"))),
    answers("y ~ x * arm + (1 | g)", FALSE, list(c("`x:armb`", "`x:armc`"), c("x", "`x:armb` - `x:armc`", "armb")))))
write(toJSON(out, digits = 12, auto_unbox = TRUE, na = "null"), file.path(dirname(script), "pooling.json"))
