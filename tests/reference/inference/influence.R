# Deletion diagnostics at fixed theta and sigma, by dense matrices, and lme4's refits: writes influence.json.
# usage: Rscript influence.R OUTDIR
suppressMessages({library(lme4); library(Matrix); library(jsonlite)})
outdir <- commandArgs(TRUE)[1]
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
here <- dirname(normalizePath(script))
M <- function(x) { x <- as.matrix(x); attributes(x) <- attributes(x)["dim"]; x }
getV <- function(m) {
  Lambdat <- getME(m, "Lambdat"); Zt <- getME(m, "Zt")
  as.matrix(sigma(m)^2 * (crossprod(Lambdat %*% Zt) + Diagonal(nobs(m))))
}
deleted <- function(m, g) {
  V <- getV(m); X <- getME(m, "X"); y <- getME(m, "y"); p <- ncol(X)
  gls <- function(i) {
    Vi <- solve(V[i, i]); C <- solve(t(X[i, ]) %*% Vi %*% X[i, ])
    list(b = as.numeric(C %*% t(X[i, ]) %*% Vi %*% y[i]), C = C)
  }
  all <- gls(seq_along(y)); levels <- levels(factor(g))
  r <- t(sapply(levels, function(l) {
    own <- gls(which(g != l)); d <- all$b - own$b
    c(d, d %*% solve(all$C) %*% d / p, d %*% solve(own$C) %*% d / p,
      abs(sum(diag(solve(all$C) %*% own$C)) - p), det(own$C) / det(all$C))
  }))
  r <- unname(r)
  list(levels = levels, dfbeta = M(r[, 1:p]), cooksD = r[, p + 1], mdffits = r[, p + 2],
       covtrace = r[, p + 3], covratio = r[, p + 4])
}
tight <- lmerControl(optCtrl = list(ftol_abs = 1e-14, xtol_abs = 1e-12))
out <- list(versions = list(R = R.version.string, lme4 = as.character(packageVersion("lme4"))))
data(sleepstudy, package = "lme4")
m1 <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy, control = tight)
out$sleep_Subject <- deleted(m1, sleepstudy$Subject)
out$sleep_obs <- deleted(m1, sprintf("%03d", 1:180))
d <- read.csv(gzfile(file.path(here, "../../../src/mixedeffects/datasets/data/threelevel.csv.gz")))
m2 <- lmer(y ~ x1 + (1 | sch.cl/tch.cl), d, control = tight)
out$three_school <- deleted(m2, d$sch.cl)
out$three_teacher <- deleted(m2, sprintf("%02d", d$tch.cl))
P <- read.csv(file.path(here, "penicillin_x.csv"))
m3 <- lmer(diameter ~ x + (1 | plate) + (1 | sample), P, control = tight)
out$pen_sample <- deleted(m3, P$sample)
out$pen_plate <- deleted(m3, P$plate)
inf <- influence(m1, "Subject")
out$sleep_refit <- list(dfbeta = M(dfbeta(inf)), cooks = as.numeric(cooks.distance(inf)))
d2 <- influence(m2, "sch.cl")
out$three_refit <- list(levels = rownames(dfbeta(d2)), dfbeta = M(dfbeta(d2)))
write(toJSON(out, digits = NA, auto_unbox = TRUE, matrix = "rowmajor", pretty = TRUE),
      file.path(outdir, "influence.json"))
