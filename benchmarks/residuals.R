# Fits one case of residuals.py: Rscript residuals.R PACKAGE CASE DATA
arguments <- commandArgs(TRUE)
package <- arguments[1]; case <- arguments[2]
suppressMessages(library(package, character.only = TRUE))
data <- read.csv(arguments[3])
data$g <- factor(data$g)
data$time <- factor(data$t)
if (case == "visits") { data$visit <- factor(data$visit); data$arm <- factor(data$arm); data$place <- as.integer(data$visit) }
if (case == "crossed") data$item <- factor(data$item)
fits <- list(
  gls = list(
    nlme = quote(gls(y ~ x, data, correlation = corAR1(form = ~ t | g))),
    mmrm = quote(mmrm(y ~ x + ar1(time | g), data))),
  slopes = list(
    nlme = quote(lme(y ~ x + t, data, random = ~ t | g, correlation = corAR1(form = ~ t | g))),
    glmmTMB = quote(glmmTMB(y ~ x + t + (t | g) + ar1(0 + time | g), data, dispformula = ~ 0, REML = TRUE))),
  visits = list(
    nlme = quote(gls(y ~ base + arm * visit, data, correlation = corSymm(form = ~ place | g), weights = varIdent(form = ~ 1 | visit))),
    glmmTMB = quote(glmmTMB(y ~ base + arm * visit + us(0 + visit | g), data, dispformula = ~ 0, REML = TRUE)),
    mmrm = quote(mmrm(y ~ base + arm * visit + us(visit | g), data))),
  crossed = list(
    glmmTMB = quote(glmmTMB(y ~ x + (1 | g) + (1 | item) + ar1(0 + time | g), data, dispformula = ~ 0, REML = TRUE))))
seconds <- system.time(m <- suppressWarnings(eval(fits[[case]][[package]])))[["elapsed"]]
cat("ANSWER", seconds, format(-2 * as.numeric(logLik(m)), digits = 15), "\n")
