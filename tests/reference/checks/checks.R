# R's answers about collinearity and principal components of random effects:
# check_collinearity() of performance, rePCA() of lme4. Run here: Rscript checks.R
suppressMessages({library(lme4); library(performance); library(jsonlite)})
d <- read.csv("../comparison/comparison.csv", stringsAsFactors = TRUE)
d$z <- d$x + 0.3 * sin(seq_len(nrow(d)))
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5),
                     calc.derivs = FALSE, check.conv.singular = "ignore")
vif <- function(m) {
  v <- suppressMessages(as.data.frame(check_collinearity(m)))
  list(term = v$Term, VIF = v$VIF, SE_factor = v$SE_factor)
}
pca <- function(m) lapply(rePCA(m), function(p) list(sd = p$sdev, proportion = p$sdev^2 / sum(p$sdev^2)))
models <- list(
  collinear = list(data = "comparison", f = "y ~ x + z + f + (1 | g) + (1 | h)"),
  interaction = list(data = "comparison", f = "y ~ x * f + z + (x | g) + (1 | h)"),
  cake = list(data = "cake", f = "angle ~ recipe + temp + (1 | recipe:replicate)"),
  sleepstudy = list(data = "sleepstudy", f = "Reaction ~ Days + (Days | Subject)"),
  uncorrelated = list(data = "sleepstudy", f = "Reaction ~ Days + (Days || Subject)")
)
datasets <- list(comparison = d, sleepstudy = sleepstudy, cake = cake)
out <- lapply(models, function(one) {
  m <- lmer(as.formula(one$f), datasets[[one$data]], control = tight)
  terms <- length(attr(terms(m), "term.labels"))
  list(data = one$data, formula = one$f, vif = if (terms > 1) vif(m) else NULL, rePCA = pca(m))
})
versions <- list(R = paste(R.version$major, R.version$minor, sep = "."),
                 lme4 = as.character(packageVersion("lme4")),
                 performance = as.character(packageVersion("performance")))
writeLines(toJSON(c(list(versions = versions), out), auto_unbox = TRUE, digits = 12, pretty = TRUE,
                  null = "null"), "checks.json")
