# Fits one workload with lme4 or glmmTMB: Rscript lme4.R PACKAGE CSV FORMULA RUNS LIMIT FACTORS
suppressMessages({library(jsonlite)})
args <- commandArgs(TRUE)
package <- args[1]; formula <- as.formula(args[3]); runs <- as.integer(args[4]); limit <- as.numeric(args[5])
data <- read.csv(args[2])
for (name in strsplit(args[6], ",")[[1]]) data[[name]] <- factor(data[[name]])
if (package == "lme4") suppressMessages(library(lme4)) else suppressMessages(library(glmmTMB))
fit <- function() suppressMessages(suppressWarnings(
  if (package == "lme4") lmer(formula, data) else glmmTMB(formula, data, REML = TRUE)))
elapsed <- function(expression) system.time(expression)[["elapsed"]]
base <- sum(gc(reset = TRUE)[, 6])
first <- elapsed(m <- fit())
seconds <- if (first > limit / 4) first else c()
spent <- first
while (length(seconds) < runs && spent < limit / 2) { s <- elapsed(m <- fit()); seconds <- c(seconds, s); spent <- spent + s }
criterion <- if (package == "lme4") REMLcrit(m) else -2 * as.numeric(logLik(m))
evaluations <- if (package == "lme4") m@optinfo$feval else m$fit$evaluations[[1]]
cat("ANSWER", toJSON(list(seconds = seconds, criterion = criterion, evaluations = evaluations,
  megabytes = sum(gc()[, 6]) - base), auto_unbox = FALSE, digits = NA), "\n")
