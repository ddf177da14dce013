# R's answers about comparisons of models: anova() of lme4, ranova() of lmerTest, icc() and r2() of
# performance, cAIC() of cAIC4. Run here: Rscript comparison.R
suppressMessages({library(lme4); library(lmerTest); library(performance); library(cAIC4)})
library(jsonlite)
d <- read.csv("comparison.csv", stringsAsFactors = TRUE)
data(Machines, package = "nlme")
Machines <- as.data.frame(Machines)
data(Orthodont, package = "nlme")
Orthodont <- as.data.frame(Orthodont)
Orthodont$Subject <- factor(as.character(Orthodont$Subject))
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5),
                     calc.derivs = FALSE, check.conv.singular = "ignore")
write.csv(Machines[c("Worker", "Machine", "score")], "machines.csv", row.names = FALSE)

tab <- function(a) list(rows = rownames(a), columns = names(a),
                        values = lapply(as.list(as.data.frame(a)), as.numeric))

# --- anova: sets of formulas, data, REML, weights -------------------------------------------------
sets <- list(
  slopes = list(data = "sleepstudy", reml = TRUE, weights = FALSE,
    f = c("Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days || Subject)",
          "Reaction ~ Days + (Days | Subject)")),
  fixed = list(data = "sleepstudy", reml = TRUE, weights = FALSE,
    f = c("Reaction ~ 1 + (Days | Subject)", "Reaction ~ Days + (Days | Subject)",
          "Reaction ~ Days + I(Days^2) + (Days | Subject)")),
  ml = list(data = "sleepstudy", reml = FALSE, weights = FALSE,
    f = c("Reaction ~ Days + (Days | Subject)", "Reaction ~ 1 + (1 | Subject)")),
  machines = list(data = "machines", reml = TRUE, weights = FALSE,
    f = c("score ~ Machine + (1 | Worker)",
          "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)",
          "score ~ Machine + (0 + Machine | Worker)")),
  crossed = list(data = "comparison", reml = TRUE, weights = TRUE,
    f = c("y ~ x + f + (1 | g) + (1 | h)", "y ~ x + f + (x | g) + (1 | h)")),
  weighted_fixed = list(data = "comparison", reml = TRUE, weights = TRUE,
    f = c("y ~ x + (1 | g) + (1 | h)", "y ~ x + f + (1 | g) + (1 | h)")),
  offset = list(data = "comparison", reml = FALSE, weights = FALSE,
    f = c("y ~ x + offset(o) + (1 | g)", "y ~ x + o + (1 | g)"))
)
datasets <- list(sleepstudy = sleepstudy, machines = Machines, comparison = d,
                 orthodont = Orthodont, dyestuff = Dyestuff, dyestuff2 = Dyestuff2,
                 penicillin = Penicillin, pastes = Pastes)
fit <- function(f, data, reml, weights = FALSE) {
  data <- datasets[[data]]
  assign("current", data, envir = globalenv())
  call <- if (weights) substitute(lmer(F, current, REML = R, weights = w, control = tight),
                                  list(F = as.formula(f), R = reml))
          else substitute(lmer(F, current, REML = R, control = tight),
                          list(F = as.formula(f), R = reml))
  eval(call, globalenv())
}
out <- list(versions = list(lme4 = as.character(packageVersion("lme4")),
  lmerTest = as.character(packageVersion("lmerTest")),
  performance = as.character(packageVersion("performance")),
  cAIC4 = as.character(packageVersion("cAIC4"))))
out$anova <- lapply(sets, function(s) {
  models <- lapply(s$f, fit, data = s$data, reml = s$reml, weights = s$weights)
  bare <- lapply(models, function(m) as(m, "lmerMod"))
  same <- s$reml && length(unique(sapply(models, function(m) paste(names(fixef(m)), collapse = "")))) == 1
  call <- list(bare[[1]]); for (b in bare[-1]) call <- c(call, b)
  names(call) <- NULL
  a <- suppressMessages(do.call(lme4:::anova.merMod,
    c(call, list(refit = !same, model.names = paste0("m", seq_along(bare))))))
  c(s, list(same = same, table = tab(a)))
})

# --- ranova ---------------------------------------------------------------------------------------
models <- list(
  list(data = "sleepstudy", f = "Reaction ~ Days + (Days | Subject)", reml = TRUE),
  list(data = "sleepstudy", f = "Reaction ~ Days + (Days | Subject)", reml = FALSE),
  list(data = "sleepstudy", f = "Reaction ~ Days + (1 | Subject)", reml = TRUE),
  list(data = "sleepstudy", f = "Reaction ~ Days + (1 | Subject)", reml = FALSE),
  list(data = "dyestuff", f = "Yield ~ 1 + (1 | Batch)", reml = TRUE),
  list(data = "dyestuff2", f = "Yield ~ 1 + (1 | Batch)", reml = TRUE),
  list(data = "penicillin", f = "diameter ~ 1 + (1 | plate) + (1 | sample)", reml = TRUE),
  list(data = "pastes", f = "strength ~ 1 + (1 | batch/cask)", reml = TRUE),
  list(data = "orthodont", f = "distance ~ age * Sex + (age | Subject)", reml = TRUE),
  list(data = "machines", f = "score ~ Machine + (0 + Machine | Worker)", reml = TRUE),
  list(data = "comparison", f = "y ~ x + f + (x | g) + (1 | h)", reml = TRUE, weights = TRUE),
  list(data = "comparison", f = "y ~ x + f + (x + f | g) + (1 | h)", reml = TRUE),
  list(data = "comparison", f = "y ~ x + f + (0 + f + k | g)", reml = TRUE),
  list(data = "comparison", f = "y ~ x + f + (x * k | g)", reml = TRUE),
  list(data = "comparison", f = "y ~ x + offset(o) + (1 | g)", reml = TRUE, weights = TRUE)
)
out$models <- lapply(models, function(m) {
  weighted <- isTRUE(m$weights)
  fitted <- fit(m$f, m$data, m$reml, weighted)
  m$weights <- weighted
  r <- try(suppressMessages(suppressWarnings(ranova(fitted))), silent = TRUE)
  whole <- try(suppressMessages(suppressWarnings(ranova(fitted, reduce.terms = FALSE))), silent = TRUE)
  m$theta <- I(unname(getME(fitted, "theta"))); m$sigma <- sigma(fitted); m$loglik <- as.numeric(logLik(fitted))
  if (!inherits(r, "try-error")) m$ranova <- tab(r) else cat(m$f, r)
  if (!inherits(whole, "try-error")) m$whole <- tab(whole)
  v <- suppressWarnings(insight::get_variance(fitted))
  m$variance <- lapply(v[c("var.fixed", "var.random", "var.residual")], unname)
  i <- try(suppressWarnings(icc(fitted)), silent = TRUE)
  if (is.list(i) && length(i$ICC_adjusted)) m$icc <- list(adjusted = unname(i$ICC_adjusted), unadjusted = unname(i$ICC_unadjusted))
  g <- try(suppressWarnings(icc(fitted, by_group = TRUE)), silent = TRUE)
  if (is.data.frame(g)) m$by_group <- list(group = as.list(g$Group), ICC = as.list(g$ICC))
  r2 <- try(suppressWarnings(r2_nakagawa(fitted)), silent = TRUE)
  if (is.list(r2) && length(r2$R2_conditional)) m$r2 <- list(marginal = unname(r2$R2_marginal), conditional = unname(r2$R2_conditional))
  ca <- try(suppressWarnings(cAIC(as(fitted, "lmerMod"))), silent = TRUE)
  if (is.list(ca)) m$caic <- list(loglik = as.numeric(ca$loglikelihood), df = as.numeric(ca$df),
                                  caic = as.numeric(ca$caic), refit = ca$new) else cat("caic", m$f, ca, "\n")
  m
})
write_json(out, "comparison.json", digits = 12, auto_unbox = TRUE, na = "null", pretty = TRUE)
