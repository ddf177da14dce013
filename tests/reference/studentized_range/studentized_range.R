# Tukey's studentized range in R: upper tails and quantiles over a grid of means and degrees of
# freedom.  Rscript studentized_range.R, in this folder.
k <- c(2, 3, 5, 10, 20, 40, 60, 100, 150, 200)
df <- c(2, 3, 5, 10, 20, 30.5, 60, 120, 1000, Inf)
grid <- expand.grid(q = c(0.5, 1, 2, 3, 4, 5, 6, 8, 12), k = k, df = df)
grid$p <- ptukey(grid$q, grid$k, grid$df, lower.tail = FALSE)
write.csv(grid, "ptukey.csv", row.names = FALSE, quote = FALSE)
grid <- expand.grid(alpha = c(0.2, 0.1, 0.05, 0.01, 0.001), k = k, df = df)
grid$q <- qtukey(grid$alpha, grid$k, grid$df, lower.tail = FALSE)
write.csv(grid, "qtukey.csv", row.names = FALSE, quote = FALSE)
q <- abs(sin(seq_len(11175))) * 6
cat("11,175 upper tails, 150 means:", system.time(ptukey(q, 150, 300, lower.tail = FALSE))[1], "s\n")
cat("780 upper tails, 40 means:", system.time(ptukey(q[1:780], 40, 300, lower.tail = FALSE))[1], "s\n")
cat("qtukey, 40 means:", system.time(qtukey(0.95, 40, 300))[1], "s\n")
