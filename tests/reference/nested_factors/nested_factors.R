# Marginal means of nested fixed factors by R's emmeans: estimates and standard errors.
# Rscript nested_factors.R, in this folder; the data are made here too.
suppressMessages({library(lme4); library(emmeans); library(jsonlite)})
emm_options(lmer.df = "asymptotic")
set.seed(20)

strains <- expand.grid(rep = 1:4, strain = letters[21:26], trial = 1:5)
strains$geno <- c(u = "g1", v = "g1", w = "g2", x = "g2", y = "g2", z = "g3")[as.character(strains$strain)]
strains$y <- rnorm(5)[strains$trial] + 0.3 * as.integer(strains$strain) + rnorm(nrow(strains))

doses <- merge(data.frame(block = 1:6), data.frame(drug = c("none", "a", "a", "b", "b", "b", "c"),
                                                  dose = c("0", "10", "20", "10", "20", "40", "10")))
doses$kind <- ifelse(doses$drug == "none", "control", "treated")
doses$y <- 2 * rnorm(6)[doses$block] + nchar(doses$drug) + rnorm(nrow(doses))

areas <- expand.grid(rep = 1:3, trt = c("c", "t"), site = 1:4,
                     school = paste0("s", 1:9), stringsAsFactors = FALSE)
district <- c("d1", "d1", "d1", "d2", "d3", "d3", "d4", "d5", "d5")
areas$district <- district[as.integer(substr(areas$school, 2, 2))]
areas$region <- c(d1 = "n", d2 = "n", d3 = "s", d4 = "s", d5 = "s")[areas$district]
areas$x <- round(rnorm(nrow(areas)), 3)
areas$y <- rnorm(4)[areas$site] + areas$x * (areas$region == "n") + nchar(areas$school) + rnorm(nrow(areas))

levels <- expand.grid(rep = 1:4, a = c("a1", "a2", "a3"), b = c("b1", "b2"), g = 1:6)
levels$y <- rnorm(6)[levels$g] + rnorm(nrow(levels))

write.csv(strains[c("trial", "geno", "strain", "y")], "strains.csv", row.names = FALSE, quote = FALSE)
write.csv(doses[c("block", "kind", "drug", "dose", "y")], "doses.csv", row.names = FALSE, quote = FALSE)
write.csv(areas[c("site", "region", "district", "school", "trt", "x", "y")], "areas.csv",
          row.names = FALSE, quote = FALSE)
write.csv(levels[c("g", "a", "b", "y")], "levels.csv", row.names = FALSE, quote = FALSE)

read <- function(name) {
  d <- read.csv(paste0(name, ".csv"), stringsAsFactors = TRUE, colClasses = if (name == "doses") c(dose = "character") else NA)
  for (i in seq_along(d)) if (is.character(d[[i]])) d[[i]] <- factor(d[[i]])
  d
}
out <- list()
keep <- function(name, grid, order) {
  s <- as.data.frame(grid)
  value <- intersect(c("emmean", "estimate", "x.trend"), names(s))
  label <- setdiff(names(s), c(value, "SE", "df", "asymp.LCL", "asymp.UCL", "z.ratio", "p.value"))
  out[[name]] <<- list(label = apply(s[label], 1, paste, collapse = " "), estimate = s[[value]], SE = s$SE)
}

m <- lmer(y ~ geno + strain + (1 | trial), read("strains"))
keep("strains: geno", emmeans(m, "geno"))
keep("strains: geno pairs", pairs(emmeans(m, "geno")))
keep("strains: strain", emmeans(m, "strain"))
keep("strains: strain by geno", emmeans(m, "strain", by = "geno"))
keep("strains: strain by geno pairs", pairs(emmeans(m, "strain", by = "geno")))
keep("strains: overall", emmeans(m, ~ 1))

m <- lmer(y ~ kind / (drug * dose) + (1 | block), read("doses"))
keep("doses: kind", emmeans(m, "kind"))
keep("doses: drug", emmeans(m, "drug"))
keep("doses: drug by dose", emmeans(m, "drug", by = "dose"))

m <- lmer(y ~ trt + region * x + district + school + (1 | site), read("areas"))
keep("areas: region", emmeans(m, "region"))
keep("areas: district", emmeans(m, "district"))
keep("areas: trt", emmeans(m, "trt"))
keep("areas: region by trt", emmeans(m, "region", by = "trt"))
keep("areas: district pairs", pairs(emmeans(m, "district")))
keep("areas: trend by region", emtrends(m, "region", var = "x"))
keep("areas: trend by district", emtrends(m, "district", var = "x"))

m <- lmer(y ~ a / b + (1 | g), read("levels"))
keep("levels: a", emmeans(m, "a"))
keep("levels: b", emmeans(m, "b"))

write_json(out, "nested_factors.json", digits = 12, pretty = TRUE)
