# Fits one case of generalized.py: Rscript generalized.R PACKAGE DATA FORMULA FAMILY WEIGHTS FACTORS
arguments <- commandArgs(TRUE)
package <- arguments[1]
suppressMessages(library(package, character.only = TRUE))
data <- read.csv(arguments[2])
for (name in strsplit(arguments[6], ",")[[1]]) data[[name]] <- factor(data[[name]])
response <- all.vars(as.formula(arguments[3]))[1]
if (is.character(data[[response]])) data[[response]] <- factor(data[[response]])
family <- get(arguments[4])
data$.weights <- if (nchar(arguments[5])) data[[arguments[5]]] else 1
fit <- if (package == "lme4") glmer else glmmTMB
formula <- as.formula(arguments[3])
seconds <- system.time(m <- suppressWarnings(fit(formula, data = data, family = family, weights = .weights)))
cat("ANSWER", sum(seconds[1:2]), format(-2 * as.numeric(logLik(m)), digits = 15), "\n")
