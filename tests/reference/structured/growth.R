# Covariance structures whose likelihoods are hard to climb: growth curves, by glmmTMB and nlme.
# usage: Rscript growth.R OUTDIR
# Writes bodyweight.csv, oxboys.csv, chickweight.csv (data of nlme and of R's datasets) and growth.json.
# `gls` has no residual variance beside the autoregression: the limit of a model that has one.
suppressMessages({library(glmmTMB); library(nlme); library(jsonlite)})
out <- commandArgs(TRUE)[1]
plain <- function(d) { d <- as.data.frame(d); for (v in names(d)) if (is.factor(d[[v]])) d[[v]] <- as.character(d[[v]]); d }
bodyweight <- plain(BodyWeight); oxboys <- plain(Oxboys); chickweight <- plain(ChickWeight)
for (name in c("bodyweight", "oxboys", "chickweight")) write.csv(get(name), file.path(out, paste0(name, ".csv")), row.names = FALSE, quote = FALSE)
bodyweight$time <- factor(bodyweight$Time); oxboys$time <- factor(as.integer(oxboys$Occasion)); chickweight$time <- factor(chickweight$Time)
num <- function(x) unname(as.numeric(x))
tmb <- function(data, formula, reml, start = NULL) {
  d <- get(data)
  # From several starts; the best. BFGS after nlminb, both to the end.
  best <- NULL
  for (size in c(0, 2, 4)) for (cor in c(0, 2)) {
    m <- try(suppressWarnings({
      m <- glmmTMB(as.formula(formula), d, REML = reml, doFit = FALSE)
      f <- TMB::MakeADFun(m$data.tmb, m$parameters, map = m$mapArg, random = m$randomArg, profile = NULL, silent = TRUE, DLL = "glmmTMB")
      par <- f$par; k <- names(par) == "theta"
      par[k] <- size + log(sd(d[[all.vars(as.formula(formula))[1]]]) / 10); par[which(k)[sum(k)]] <- cor
      o <- nlminb(par, f$fn, f$gr, control = list(iter.max = 5000, eval.max = 10000, rel.tol = 1e-14))
      o <- optim(o$par, f$fn, f$gr, method = "BFGS", control = list(reltol = 1e-15, maxit = 3000))
      list(value = 2 * o$value, par = o$par, f = f)
    }), silent = TRUE)
    if (!inherits(m, "try-error") && is.finite(m$value) && (is.null(best) || m$value < best$value - 1e-9)) best <- m
  }
  theta <- best$par[names(best$par) == "theta"]
  sds <- exp(theta[-length(theta)])
  list(criterion = best$value, sigma = num(exp(0.5 * best$par[names(best$par) == "betad"])), sds = num(sds), shape = num(theta[length(theta)]))
}
fits <- list()
add <- function(data, formula, tmb_formula) for (reml in c(TRUE, FALSE))
  fits[[length(fits) + 1]] <<- c(list(by = "glmmTMB", data = data, formula = formula, reml = reml), tmb(data, tmb_formula, reml))
add("bodyweight", "weight ~ Time + ar1(0 + factor(Time) | Rat)", "weight ~ Time + ar1(0 + time | Rat)")
add("bodyweight", "weight ~ Time * factor(Diet) + ar1(0 + factor(Time) | Rat)", "weight ~ Time * Diet + ar1(0 + time | Rat)")
add("bodyweight", "weight ~ Time + cs(0 + factor(Time) | Rat)", "weight ~ Time + cs(0 + time | Rat)")
add("oxboys", "height ~ age + cs(age | Subject)", "height ~ age + cs(1 + age | Subject)")
add("chickweight", "weight ~ Time * factor(Diet) + cs(0 + factor(Time) | Chick)", "weight ~ Time * Diet + cs(0 + time | Chick)")
limit <- function(data, formula, fixed, form) for (reml in c(TRUE, FALSE)) {
  m <- gls(fixed, get(data), correlation = corAR1(0.9, form = form), method = if (reml) "REML" else "ML", control = glsControl(msTol = 1e-12, tolerance = 1e-12))
  fits[[length(fits) + 1]] <<- list(by = "gls", data = data, formula = formula, reml = reml, criterion = num(-2 * logLik(m)), sigma = 0, sds = m$sigma, shape = num(coef(m$modelStruct$corStruct, unconstrained = FALSE)), fixef = num(coef(m)), se = num(sqrt(diag(vcov(m)))))
}
limit("oxboys", "height ~ age + ar1(0 + factor(Occasion) | Subject)", height ~ age, ~ as.integer(time) | Subject)
limit("chickweight", "weight ~ Time * factor(Diet) + ar1(0 + factor(Time) | Chick)", weight ~ Time * Diet, ~ as.integer(time) | Chick)
write_json(fits, file.path(out, "growth.json"), digits = 12, auto_unbox = TRUE)
for (f in fits) cat(f$by, f$formula, f$reml, sprintf("%.6f", f$criterion), f$sigma, f$shape, "\n")
