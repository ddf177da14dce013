# Seconds of an R package for one case of inference.py: Rscript inference.R PACKAGE DATA FORMULA FACTORS
arguments <- commandArgs(TRUE)
suppressMessages(library(lme4))
data <- read.csv(arguments[2])
for (name in strsplit(arguments[4], ",")[[1]]) data[[name]] <- factor(data[[name]])
m <- lmer(as.formula(arguments[3]), data)
cluster <- names(ranef(m))[length(ranef(m))]
spent <- system.time(switch(arguments[1],
  clubSandwich = clubSandwich::coef_test(m, vcov = "CR2", test = "Satterthwaite"),
  pbkrtest = {
    V <- pbkrtest::vcovAdj(m)
    for (i in seq_along(fixef(m))) {
      L <- matrix(0, 1, length(fixef(m)))
      L[i] <- 1
      pbkrtest::Lb_ddf(L, vcov(m), V)
    }
  },
  # A hundredth of the refits, and the time a hundredfold.
  bootMer = bootMer(m, function(fit) c(getME(fit, "theta"), sigma(fit), fixef(fit)), nsim = 100),
  profile = confint(m, method = "profile", quiet = TRUE)
))[["elapsed"]]
if (arguments[1] == "bootMer") spent <- 100 * spent
cat("SECONDS", spent, "\n")
