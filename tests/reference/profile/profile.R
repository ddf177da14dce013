# Profile-likelihood intervals and points of the profiles, for profile.json; data of lme4 and nlme.
# lme4 1.1-31 leaves out the weights when it profiles fixed effects; those rows are not used.
suppressMessages({library(lme4); library(jsonlite)})
d <- sleepstudy
d$w <- 0.5 + (seq_len(nrow(d)) %% 5) / 4
models <- list(
  sleepstudy = list(Reaction ~ Days + (Days | Subject), sleepstudy),
  zerocorr = list(Reaction ~ Days + (Days || Subject), sleepstudy),
  weighted = list(Reaction ~ Days + (Days | Subject), d),
  dyestuff = list(Yield ~ 1 + (1 | Batch), Dyestuff),
  dyestuff2 = list(Yield ~ 1 + (1 | Batch), Dyestuff2),
  penicillin = list(diameter ~ 1 + (1 | plate) + (1 | sample), Penicillin),
  pastes = list(strength ~ 1 + (1 | batch/cask), Pastes),
  orthodont = list(distance ~ age * Sex + (age | Subject), as.data.frame(nlme::Orthodont))
)
# lme4 inverts its profiles by splines, so points close together, and fits to full precision.
control <- lmerControl(optCtrl = list(ftol_abs = 1e-14, xtol_abs = 1e-12))
out <- list()
for (name in names(models)) {
  formula <- models[[name]][[1]]
  data <- models[[name]][[2]]
  m <- if (name == "weighted") {
    lmer(formula, data, weights = w, control = control, REML = FALSE)
  } else lmer(formula, data, control = control, REML = FALSE)
  p <- suppressWarnings(profile(m, signames = FALSE, delta.cutoff = 1 / 16))
  ci <- suppressWarnings(confint(p, level = 0.95))
  if (name == "orthodont") ci <- ci[grep("|Subject", rownames(ci), fixed = TRUE), ]
  points <- list()
  for (parameter in rownames(ci)) {
    own <- p[p$.par == parameter, ]
    keep <- unique(round(seq(1, nrow(own), length.out = 7)))
    points[[parameter]] <- list(value = own[keep, parameter], zeta = own$.zeta[keep])
  }
  out[[name]] <- list(formula = paste(deparse(formula), collapse = ""),
    parameters = as.list(rownames(ci)), intervals = unname(ci),
    deviance = as.numeric(-2 * logLik(m)), points = points)
}
write(toJSON(out, digits = NA, auto_unbox = TRUE, matrix = "rowmajor", na = "null"), "profile.json")
