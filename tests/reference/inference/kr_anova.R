# Tables of types 1, 2 and 3 with both methods, for kr_anova.json. The data are drawn here.
suppressMessages({library(lme4); library(lmerTest); library(pbkrtest); library(jsonlite)})
ctl <- lmerControl(optCtrl = list(ftol_abs = 1e-14, xtol_abs = 1e-12))
set.seed(4)
d <- expand.grid(g = paste0("g", 1:14), r = 1:6)
d$a <- factor(paste0("a", sample(1:3, nrow(d), TRUE)))
d$b <- factor(paste0("b", sample(1:2, nrow(d), TRUE, prob = c(.7, .3))))
d$x <- round(rnorm(nrow(d), 3, 2), 3)
d$z <- round(runif(nrow(d)), 3)
d$y <- round(5 + as.integer(d$a) + .5 * d$x * as.integer(d$b) + rnorm(14)[as.integer(d$g)] + rnorm(nrow(d)), 3)
csv <- tempfile()
write.csv(d, csv, row.names = FALSE)
forms <- c("y ~ a * b * x + z + (1 | g)", "y ~ a + a:b + x + (1 | g)", "y ~ a * x + b + (x | g)",
           "y ~ 0 + a + b:x + (1 | g)", "y ~ a + (1 | g)", "y ~ x * z + a:x + (1 | g)",
           "y ~ poly(x, 2) * a + (1 | g)")
out <- list(csv = readLines(csv), models = list())
for (f in forms) for (cc in c("treatment", "sum")) {
  con <- paste0("contr.", cc)
  contrasts(d$a) <- con
  contrasts(d$b) <- con
  m <- lmer(as.formula(f), d, control = ctl,
            contrasts = if (grepl("b", f)) list(a = con, b = con) else list(a = con))
  e <- list(formula = f, contrasts = cc, theta = as.list(unname(getME(m, "theta"))), sigma = sigma(m),
            fixef = as.list(unname(fixef(m))), names = names(fixef(m)), tables = list())
  for (ty in 1:3) for (dd in c("Satterthwaite", "Kenward-Roger")) {
    a <- suppressMessages(anova(m, type = ty, ddf = dd))
    e$tables[[paste0(ty, dd)]] <- list(rows = as.list(rownames(a)), values = unname(as.matrix(as.data.frame(a))))
  }
  out$models[[length(out$models) + 1]] <- e
}
write(toJSON(out, digits = NA, auto_unbox = TRUE, matrix = "rowmajor", na = "null"), "kr_anova.json")
