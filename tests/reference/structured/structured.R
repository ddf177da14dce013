# Fits with a structured covariance of the random effects, by glmmTMB and nlme (lme4 has structures
# from version 2.0 only).  usage: Rscript structured.R OUTDIR
# Writes weeks.csv, machines.csv (the data) and structured.json (criterion, fixed effects, standard
# deviations, correlation, sigma of each fit).
suppressMessages({library(glmmTMB); library(nlme); library(jsonlite)})
out <- commandArgs(TRUE)[1]
set.seed(20)
weeks <- expand.grid(rep = 1:2, week = factor(paste0("w", 1:5)), id = factor(sprintf("i%02d", 1:40)))
R <- 0.7^abs(outer(1:5, 1:5, "-")); D <- diag(c(1, 1.4, 0.8, 1.2, 1.6))
b <- matrix(rnorm(200), 40) %*% chol(D %*% R %*% D)
weeks$x <- round(rnorm(nrow(weeks)), 3)
weeks$y <- round(5 + 0.5 * weeks$x + b[cbind(as.integer(weeks$id), as.integer(weeks$week))] + rnorm(nrow(weeks)), 4)
weeks <- weeks[-sample(nrow(weeks), 40), c("id", "week", "x", "y")]
machines <- as.data.frame(Machines); machines$Worker <- factor(as.character(machines$Worker)); machines$Machine <- factor(as.character(machines$Machine))
write.csv(weeks, file.path(out, "weeks.csv"), row.names = FALSE)
write.csv(machines, file.path(out, "machines.csv"), row.names = FALSE)
num <- function(x) unname(as.numeric(x))
tmb <- function(text, d, reml) {
  m <- suppressWarnings(glmmTMB(as.formula(text), d, REML = reml, control = glmmTMBControl(optCtrl = list(iter.max = 1e4, eval.max = 1e4, rel.tol = 1e-13))))
  m <- suppressWarnings(update(m, start = list(theta = m$fit$par[names(m$fit$par) == "theta"]), control = glmmTMBControl(optimizer = optim, optArgs = list(method = "BFGS"), optCtrl = list(reltol = 1e-15, maxit = 1000))))
  v <- VarCorr(m)$cond
  list(by = "glmmTMB", criterion = num(-2 * logLik(m)), fixef = num(fixef(m)$cond), se = num(sqrt(diag(vcov(m)$cond))), df = attr(logLik(m), "df"),
    sigma = sigma(m), varcorr = lapply(v, function(x) unname(matrix(x, nrow(x)))))
}
fits <- list()
add <- function(data, formula, tmb_formula) for (reml in c(TRUE, FALSE))
  fits[[length(fits) + 1]] <<- c(list(data = data, formula = formula, reml = reml), tmb(tmb_formula, get(data), reml))
add("weeks", "y ~ x + cs(0 + week | id)", "y ~ x + cs(0 + week | id)")
add("weeks", "y ~ x + ar1(0 + week | id)", "y ~ x + ar1(0 + week | id)")
add("weeks", "y ~ x + diag(0 + week | id)", "y ~ x + diag(0 + week | id)")
# glmmTMB finds no REML criterion for this one: "NA" in the file.
add("weeks", "y ~ x + cs(1 + x | id) + ar1(0 + week | id)", "y ~ x + cs(1 + x | id) + ar1(0 + week | id)")
add("machines", "score ~ Machine + cs(0 + Machine | Worker)", "score ~ Machine + cs(0 + Machine | Worker)")
nl <- function(data, formula, fixed, random, reml) {
  m <- lme(fixed, get(data), random = random, method = if (reml) "REML" else "ML", control = lmeControl(opt = "optim", msMaxIter = 500, msTol = 1e-12, tolerance = 1e-12, returnObject = TRUE))
  v <- getVarCov(m)
  list(data = data, formula = formula, reml = reml, by = "nlme", criterion = num(-2 * logLik(m)), fixef = num(fixef(m)), se = num(sqrt(diag(vcov(m)))),
    df = attr(logLik(m), "df"), sigma = m$sigma, varcorr = list(unname(matrix(v, nrow(v)))))
}
for (reml in c(TRUE, FALSE)) {
  fits[[length(fits) + 1]] <- nl("machines", "score ~ Machine + cs(0 + Machine | Worker, hom = TRUE)", score ~ Machine, list(Worker = pdCompSymm(~ Machine - 1)), reml)
  fits[[length(fits) + 1]] <- nl("weeks", "y ~ x + cs(0 + week | id, hom = TRUE)", y ~ x, list(id = pdCompSymm(~ week - 1)), reml)
  fits[[length(fits) + 1]] <- nl("weeks", "y ~ x + diag(0 + week | id)", y ~ x, list(id = pdDiag(~ week - 1)), reml)
  fits[[length(fits) + 1]] <- nl("weeks", "y ~ x + diag(1 + x | id)", y ~ x, list(id = pdDiag(~ x)), reml)
  fits[[length(fits) + 1]] <- nl("weeks", "y ~ x + diag(0 + week | id, hom = TRUE)", y ~ x, list(id = pdIdent(~ week - 1)), reml)
}
write_json(fits, file.path(out, "structured.json"), digits = 12, auto_unbox = TRUE)
