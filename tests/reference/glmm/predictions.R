# Standard errors of predictions and marginal means with R (glmmTMB, emmeans): predictions.json.
# usage: Rscript predictions.R    from this folder; the data are those of NAME.csv.gz, or of the packages named
#
# The fit is brought to the optimum by Newton steps on glmmTMB's automatic gradient first. predict() takes
# the Hessian anew by optimHess, with steps of 1e-3 of each parameter: that is more than the standard error of
# the coefficient of age^2 with age in years, and puts 2e-4 into the standard errors. Hence age in decades.
suppressMessages({library(lme4); library(glmmTMB); library(emmeans); library(jsonlite); library(numDeriv); library(mlmRev)})
gz <- function(nm) read.csv(paste0(nm, ".csv.gz"), stringsAsFactors = TRUE)
cbppd <- function() { d <- lme4::cbpp; d$prop <- d$incidence/d$size; d }
decades <- function() { d <- Contraception; d$age <- d$age/10; d }
rec <- function() { d <- gz("cake_gamma"); d$replicate <- factor(d$replicate); d }
M <- function(f, d, family, specs, w = NULL) list(f = f, d = d, family = family, specs = specs, w = w)
set <- list(
  cbpp = M(prop ~ period + (1|herd), cbppd(), binomial(), "period", "size"),
  contraception_slope = M(use ~ age + I(age^2) + urban + livch + (urban|district), decades(), binomial(), "livch"),
  salamander = M(Mate ~ Cross + (1|Female) + (1|Male), local({ d <- read.csv("sources/salamander.csv.gz", stringsAsFactors = TRUE); d }), binomial(), "Cross"),
  schizophrenia_probit = M(disorder ~ onset*month + (1|subject), gz("schizophrenia_probit"), binomial("probit"), "onset"),
  owls_nb = M(SiblingNegotiation ~ FoodTreatment*SexParent + offset(logBroodSize) + (1|Nest), gz("owls_nb"), nbinom2(), "FoodTreatment"),
  cake_gamma = M(angle ~ recipe*temp + (1|recipe:replicate), rec(), Gamma("log"), "recipe"),
  beta_slope = M(y ~ x + t + (x|g), local({ d <- gz("beta_slope"); d$g <- factor(d$g); d }), beta_family(), "t"))
num <- function(x) unname(as.numeric(x)); out <- list()
for (nm in names(set)) { s <- set[[nm]]; d <- droplevels(as.data.frame(s$d)); d$.w <- if (is.null(s$w)) 1 else d[[s$w]]
  g <- suppressWarnings(glmmTMB(s$f, d, family = s$family, weights = .w)); par <- g$fit$par; gr <- g$obj$gr
  for (k in 1:8) { gg <- num(gr(par)); H <- jacobian(gr, par); H <- (H + t(H))/2; st <- num(-solve(H, gg)); st <- st*min(1, 1/max(abs(st))); par <- par + st; if (max(abs(st)) < 1e-9) break }
  g$obj$fn(par); H <- jacobian(gr, par); H <- (H + t(H))/2
  dimnames(H) <- list(names(par), names(par)); g$fit$par <- par; g$sdr <- TMB::sdreport(g$obj, par.fixed = par, hessian.fixed = H, getJointPrecision = FALSE)
  rows <- round(seq(1, nrow(d), length.out = 12)); nd <- d[rows, ]
  both <- function(type, re) { p <- predict(g, newdata = nd, type = type, se.fit = TRUE, re.form = re); list(fit = num(p$fit), se = num(p$se.fit)) }
  em <- emmeans(g, s$specs); tab <- function(x) lapply(as.data.frame(x), function(v) if (is.numeric(v)) v else as.character(v))
  pr <- pairs(em)
  out[[nm]] <- list(rows = rows, link = both("link", NULL), response = both("response", NULL), population = both("link", NA), specs = s$specs,
    emmeans_link = tab(summary(em)), emmeans_response = tab(summary(em, type = "response")),
    pairs_link = tab(summary(pr, infer = TRUE)), pairs_response = tab(summary(pr, type = "response", infer = TRUE)))
  cat(nm, max(abs(st)), "\n") }
write_json(out, "predictions.json", digits = NA, auto_unbox = TRUE, na = "null", pretty = TRUE)
