# Cluster-robust answers of clubSandwich: writes robust_NAME.json.  usage: Rscript robust.R OUTDIR
# NAME is sleepstudy, threelevel or konly; their data are the package's bundled datasets (src/mixedeffects/datasets/data).
suppressMessages({library(lme4); library(clubSandwich); library(jsonlite)})
out <- commandArgs(TRUE)[1]
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
data_of <- function(name) read.csv(gzfile(file.path(dirname(script), "../../../src/mixedeffects/datasets/data", paste0(name, ".csv.gz"))))
plain <- function(x) { x <- as.matrix(x); dimnames(x) <- NULL; attributes(x) <- attributes(x)["dim"]; x }
robust <- function(m, constraints) {
  one <- function(kind) {
    vc <- vcovCR(m, type = kind); ct <- coef_test(m, vcov = vc, test = "All"); ci <- conf_int(m, vcov = vc, test = "Satterthwaite")
    wald <- lapply(constraints, function(C) {
      w <- Wald_test(m, constraints = C, vcov = vc, test = "All")
      list(C = plain(C), test = w$test, Fstat = w$Fstat, delta = w$delta, df_num = w$df_num, df_denom = w$df_denom, p = w$p_val) })
    list(vcov = plain(vc), se = ct$SE, tstat = ct$tstat, df_satt = ct$df_Satt, p_satt = ct$p_Satt, saddlepoint = ct$saddlepoint,
         p_saddle = ct$p_saddle, p_z = ct$p_z, df_t = ct$df_t, p_t = ct$p_t, df_tp = ct$df_tp, wald = wald, ci95 = list(lower = ci$CI_L, upper = ci$CI_U)) }
  kinds <- c("CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3")
  c(list(versions = list(R = R.version.string, lme4 = as.character(packageVersion("lme4")), clubSandwich = as.character(packageVersion("clubSandwich"))),
         coef_names = names(fixef(m)), n_clusters = nlevels(attr(vcovCR(m, type = "CR0"), "cluster"))), sapply(kinds, one, simplify = FALSE)) }
tight <- lmerControl(optCtrl = list(ftol_abs = 1e-14, xtol_abs = 1e-12))
star <- data_of("star_sample"); star$cltype <- factor(star$cltype, c("small", "reg", "reg+A")); star$sx <- factor(star$sx, c("M", "F"))
sleep <- data_of("sleepstudy"); sleep$Subject <- factor(sleep$Subject)
three <- data_of("threelevel"); three$sch.cl <- factor(three$sch.cl)
answers <- list(
  sleepstudy = robust(lmer(Reaction ~ Days + (Days|Subject), sleep, control = tight), list(Days = matrix(c(0, 1), 1), both = diag(2))),
  threelevel = robust(lmer(y ~ x1 + (1|sch.cl/tch.cl), three, control = tight), list(x1 = matrix(c(0, 1), 1), both = diag(2))),
  # lme4's default, at whose theta the package is evaluated.
  konly = robust(lmer(read ~ cltype + sx + (sx|sch/tch), star), list(cltype = cbind(0, diag(2), 0), sx = matrix(c(0, 0, 0, 1), 1))))
for (name in names(answers)) write(toJSON(answers[[name]], digits = 10, auto_unbox = TRUE, na = "string"), file.path(out, paste0("robust_", name, ".json")))
