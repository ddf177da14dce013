# Tests and intervals of generalized fits: glmmTMB (Laplace), lme4 (quadrature), emmeans.
# Writes inference.json in this folder; the data are those that the packages bring.
suppressMessages({library(glmmTMB); library(lme4); library(emmeans); library(jsonlite)})
data(Contraception, package = "mlmRev")
control <- glmmTMBControl(optCtrl = list(iter.max = 1e4, eval.max = 1e4, rel.tol = 1e-11))
out <- list()
bounds <- function(x) {
  x <- as.matrix(x)[, 1:2, drop = FALSE]
  setNames(lapply(seq_len(nrow(x)), function(i) as.numeric(x[i, ])), rownames(x))
}
lrt <- function(a, b) {
  t <- anova(a, b)
  list(chisq = t$Chisq[2], df = t$`Chi Df`[2], p = t$`Pr(>Chisq)`[2])
}

m <- glmmTMB(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp,
             family = binomial, control = control)
m0 <- update(m, . ~ . - period)
g <- glm(cbind(incidence, size - incidence) ~ period, binomial, cbpp)
out$cbpp <- list(
  wald = bounds(confint(m)), uniroot = bounds(confint(m, method = "uniroot", parm = 1:5)),
  lrt_period = lrt(m0, m), glm_deviance = -2 * as.numeric(logLik(g)),
  aic = AIC(m), bic = BIC(m)
)
q <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial, nAGQ = 7,
           control = glmerControl(tolPwrss = 1e-13))
out$cbpp_quadrature <- list(
  profile = bounds(confint(q, method = "profile", devtol = 1e-6, quiet = TRUE))
)

m <- glmmTMB(TICKS ~ cHEIGHT + YEAR + (1 | BROOD), grouseticks, family = nbinom2,
             control = control)
out$grouseticks <- list(
  wald = bounds(confint(m)), uniroot = bounds(confint(m, method = "uniroot", parm = 1:4)),
  wald_theta = exp(m$sdr$par.fixed["betad"] +
    c(-1, 1) * qnorm(.975) * sqrt(m$sdr$cov.fixed["betad", "betad"])),
  lrt_year = lrt(update(m, . ~ . - YEAR), m)
)

m <- glmmTMB(use ~ age + urban * livch + (1 | district), Contraception, family = binomial,
             control = control)
s <- glmmTMB(use ~ age + urban * livch + (urban | district), Contraception, family = binomial,
             control = control)
j <- as.data.frame(joint_tests(m))
out$contraception <- list(
  joint_tests = as.list(setNames(j$df1 * j$F.ratio, j$`model term`)),
  lrt_slope = lrt(m, s), wald = bounds(confint(s))
)
writeLines(toJSON(out, digits = NA, auto_unbox = TRUE, pretty = TRUE), "inference.json")
