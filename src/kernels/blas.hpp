// The linear algebra library that SciPy ships, reached through the function pointers of its Cython
// interface: no library of our own to link, and one set of threads to control.
#pragma once

#include "arrays.hpp"

namespace kernels::blas {

struct Functions {
    void (*gemm)(char *, char *, int *, int *, int *, double *, double *, int *, double *, int *,
                 double *, double *, int *) = nullptr;
    void (*trsm)(char *, char *, char *, char *, int *, int *, double *, double *, int *, double *,
                 int *) = nullptr;
    void (*potrf)(char *, int *, double *, int *, int *) = nullptr;
};

inline Functions &functions() {
    static Functions table;
    return table;
}

// Takes the capsules that scipy.linalg.cython_blas and cython_lapack publish.
inline void use_functions(nb::capsule gemm, nb::capsule trsm, nb::capsule potrf) {
    Functions &table = functions();
    table.gemm = reinterpret_cast<decltype(table.gemm)>(gemm.data());
    table.trsm = reinterpret_cast<decltype(table.trsm)>(trsm.data());
    table.potrf = reinterpret_cast<decltype(table.potrf)>(potrf.data());
}

// C (m x n) <- alpha op(A) op(B) + beta C, all column-major.
inline void gemm(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                 double alpha, const double *A, std::int64_t lda, const double *B, std::int64_t ldb,
                 double beta, double *C, std::int64_t ldc) {
    if (m == 0 || n == 0) return;
    char ta = transpose_a ? 'T' : 'N', tb = transpose_b ? 'T' : 'N';
    int mi = static_cast<int>(m), ni = static_cast<int>(n), ki = static_cast<int>(k);
    int la = static_cast<int>(lda), lb = static_cast<int>(ldb), lc = static_cast<int>(ldc);
    functions().gemm(&ta, &tb, &mi, &ni, &ki, &alpha, const_cast<double *>(A), &la,
                     const_cast<double *>(B), &lb, &beta, C, &lc);
}

// B (m x n) <- L^-1 B, or L^-T B, with L lower triangular.
inline void solve_lower(bool transpose, std::int64_t m, std::int64_t n, const double *L,
                        std::int64_t ldl, double *B, std::int64_t ldb) {
    if (m == 0 || n == 0) return;
    char side = 'L', lower = 'L', trans = transpose ? 'T' : 'N', diagonal = 'N';
    int mi = static_cast<int>(m), ni = static_cast<int>(n);
    int ll = static_cast<int>(ldl), lb = static_cast<int>(ldb);
    double one = 1.0;
    functions().trsm(&side, &lower, &trans, &diagonal, &mi, &ni, &one, const_cast<double *>(L), &ll,
                     B, &lb);
}

// B (m x n) <- B L^-T with L (n x n) lower triangular.
inline void solve_lower_right(std::int64_t m, std::int64_t n, const double *L, std::int64_t ldl,
                              double *B, std::int64_t ldb) {
    if (m == 0 || n == 0) return;
    char side = 'R', lower = 'L', trans = 'T', diagonal = 'N';
    int mi = static_cast<int>(m), ni = static_cast<int>(n);
    int ll = static_cast<int>(ldl), lb = static_cast<int>(ldb);
    double one = 1.0;
    functions().trsm(&side, &lower, &trans, &diagonal, &mi, &ni, &one, const_cast<double *>(L), &ll,
                     B, &lb);
}

// B <- L^-1 B, or L^-T B, for arrays; L may have more rows and columns than B has rows.
inline void solve_lower_array(ConstFortranDoubles L, FortranDoubles B, bool transpose) {
    nb::gil_scoped_release release;
    solve_lower(transpose, static_cast<std::int64_t>(B.shape(0)),
                static_cast<std::int64_t>(B.shape(1)), L.data(),
                static_cast<std::int64_t>(L.shape(0)), B.data(),
                static_cast<std::int64_t>(B.shape(0)));
}

// A <- its lower Cholesky factor; false if it is not positive definite.
inline bool cholesky(std::int64_t n, double *A, std::int64_t lda) {
    char lower = 'L';
    int ni = static_cast<int>(n), la = static_cast<int>(lda), info = 0;
    functions().potrf(&lower, &ni, A, &la, &info);
    return info == 0;
}

} // namespace kernels::blas
