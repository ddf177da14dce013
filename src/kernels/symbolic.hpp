// Which columns of the remainder to eliminate sparsely, in which order, and what each of them will
// touch. Nodes are levels of the remainder's factors; a node stands for `size` scalar columns.
#pragma once

#include "arrays.hpp"

#include <Eigen/SparseCore>
#include <Eigen/OrderingMethods>
#include <algorithm>
#include <cmath>
#include <numeric>

namespace kernels {

// Neighbours of every node, itself included, where two nodes are neighbours if some clique holds
// both: CSC pointers and indices. Both are empty once there are more than `most` of them.
inline auto clique_graph(Offsets ptr, Codes ind, std::int64_t n_nodes, std::int64_t most) {
    const std::int64_t n_cliques = static_cast<std::int64_t>(ptr.shape(0)) - 1;
    std::vector<std::int32_t> graph_ptr(n_nodes + 1, 0), graph;
    bool sparse = true;
    {
        nb::gil_scoped_release release;
        std::vector<std::int64_t> start(n_nodes + 1, 0);
        std::vector<std::int32_t> cliques(ind.shape(0));
        for (std::size_t t = 0; t < ind.shape(0); ++t) ++start[ind.data()[t] + 1];
        for (std::int64_t v = 0; v < n_nodes; ++v) start[v + 1] += start[v];
        std::vector<std::int64_t> next(start.begin(), start.end() - 1);
        for (std::int64_t i = 0; i < n_cliques; ++i)
            for (std::int64_t t = ptr.data()[i]; t < ptr.data()[i + 1]; ++t)
                cliques[next[ind.data()[t]]++] = static_cast<std::int32_t>(i);
        std::vector<std::int32_t> seen(n_nodes, -1);
        auto neighbours = [&](std::int64_t v, std::int32_t mark, auto &&visit) {
            seen[v] = mark;
            for (std::int64_t s = start[v]; s < start[v + 1]; ++s)
                for (std::int64_t t = ptr.data()[cliques[s]]; t < ptr.data()[cliques[s] + 1]; ++t) {
                    const std::int32_t u = ind.data()[t];
                    if (seen[u] == mark) continue;
                    seen[u] = mark;
                    visit(u);
                }
        };
        // A few nodes spread over all of them tell a dense graph before it is written down.
        constexpr std::int64_t probes = 64;
        double counted = 0.0;
        const std::int64_t stride = std::max<std::int64_t>(1, n_nodes / probes);
        std::int32_t mark = 0;
        std::int64_t probed = 0;
        for (std::int64_t v = 0; v < n_nodes; v += stride, ++probed)
            neighbours(v, mark++, [&](std::int32_t) { counted += 1.0; });
        sparse = probed == 0 || counted / probed * n_nodes <= 1.5 * static_cast<double>(most);
        std::fill(seen.begin(), seen.end(), -1);
        for (std::int64_t v = 0; v < n_nodes && sparse; ++v) {
            graph.push_back(static_cast<std::int32_t>(v));
            neighbours(v, static_cast<std::int32_t>(v),
                       [&](std::int32_t u) { graph.push_back(u); });
            std::sort(graph.begin() + graph_ptr[v], graph.end());
            graph_ptr[v + 1] = static_cast<std::int32_t>(graph.size());
            sparse = static_cast<std::int64_t>(graph.size()) <= most;
        }
    }
    if (!sparse) {
        graph_ptr.clear();
        graph.clear();
    }
    return nb::make_tuple(owned_array(std::move(graph_ptr)), owned_array(std::move(graph)));
}

namespace symbolic {

using Ints = std::vector<std::int32_t>;

// Parents in the elimination tree of the graph under an order.
inline Ints elimination_tree(const std::int32_t *ptr, const std::int32_t *ind, const Ints &order,
                             const Ints &position) {
    const std::int32_t n = static_cast<std::int32_t>(order.size());
    Ints parent(n, -1), ancestor(n, -1);
    for (std::int32_t j = 0; j < n; ++j)
        for (std::int32_t t = ptr[order[j]]; t < ptr[order[j] + 1]; ++t) {
            std::int32_t i = position[ind[t]];
            while (i != -1 && i < j) {
                const std::int32_t above = ancestor[i];
                ancestor[i] = j;
                if (above == -1) parent[i] = j;
                i = above;
            }
        }
    return parent;
}

// Scalar rows of every column of the factor, its own included.
inline std::vector<std::int64_t> column_counts(const std::int32_t *ptr, const std::int32_t *ind,
                                               const Ints &order, const Ints &position,
                                               const Ints &parent,
                                               const std::vector<std::int64_t> &size) {
    const std::int32_t n = static_cast<std::int32_t>(order.size());
    std::vector<std::int64_t> count(size);
    Ints mark(n, -1);
    for (std::int32_t j = 0; j < n; ++j) {
        mark[j] = j;
        for (std::int32_t t = ptr[order[j]]; t < ptr[order[j] + 1]; ++t)
            for (std::int32_t i = position[ind[t]]; i < j && mark[i] != j; i = parent[i]) {
                mark[i] = j;
                count[i] += size[j];
            }
    }
    return count;
}

// Depth-first order of the tree in which the heaviest child comes last, next to its parent.
inline Ints postorder(const Ints &parent, const std::vector<std::int64_t> &weight) {
    const std::int32_t n = static_cast<std::int32_t>(parent.size());
    Ints first(n + 1, -1), sibling(n, -1), by_weight(n), out;
    std::iota(by_weight.begin(), by_weight.end(), 0);
    // Pushed in this order, the lightest child is visited first.
    std::stable_sort(by_weight.begin(), by_weight.end(),
                     [&](std::int32_t a, std::int32_t b) { return weight[a] > weight[b]; });
    for (std::int32_t v : by_weight) {
        const std::int32_t p = parent[v] < 0 ? n : parent[v];
        sibling[v] = first[p];
        first[p] = v;
    }
    out.reserve(n);
    Ints stack;
    for (std::int32_t root = first[n]; root != -1; root = sibling[root]) {
        stack.push_back(root);
        while (!stack.empty()) {
            const std::int32_t v = stack.back();
            if (first[v] != -1) {
                const std::int32_t child = first[v];
                first[v] = sibling[child];
                stack.push_back(child);
            } else {
                out.push_back(v);
                stack.pop_back();
            }
        }
    }
    return out;
}

} // namespace symbolic

// A fill-reducing order of the nodes of a graph (each its own neighbour), cut where one dense block becomes cheaper than going on, and
// the fronts before the cut: runs of columns with (nearly) the same rows.
//
// costs = {seconds per front, seconds per entry of a column squared, the same divided by the width
// of the front, seconds per cubed row of the dense core}.
//
// Returns the order, the first position of every front (one more than there are fronts; the last
// is where the core begins), for each front its rows beyond its own columns, as positions, and the
// number of entries of the fronts' blocks. Rows are left out where there are more than `most`.
inline auto elimination_plan(Codes graph_ptr, Codes graph_ind, Offsets sizes, ConstDoubles costs,
                             double most) {
    using symbolic::Ints;
    const std::int32_t n = static_cast<std::int32_t>(sizes.shape(0));
    const std::int32_t *ptr = graph_ptr.data(), *ind = graph_ind.data();
    std::vector<std::int32_t> order(n), front_first, below;
    std::vector<std::int64_t> below_ptr(1, 0);
    double entries = 0.0;
    {
        nb::gil_scoped_release release;
        {
            const std::vector<double> values(static_cast<std::size_t>(ptr[n]), 1.0);
            using Sparse = Eigen::SparseMatrix<double, Eigen::ColMajor, std::int32_t>;
            const Sparse pattern =
                Eigen::Map<const Sparse>(n, n, ptr[n], ptr, ind, values.data());
            Eigen::PermutationMatrix<Eigen::Dynamic, Eigen::Dynamic, std::int32_t> permutation;
            Eigen::AMDOrdering<std::int32_t>()(pattern, permutation);
            for (std::int32_t i = 0; i < n; ++i) order[i] = permutation.indices()[i];
        }
        Ints position(n);
        std::vector<std::int64_t> size(n);
        auto renumber = [&] {
            for (std::int32_t i = 0; i < n; ++i) {
                position[order[i]] = i;
                size[i] = sizes.data()[order[i]];
            }
        };
        renumber();
        Ints parent = symbolic::elimination_tree(ptr, ind, order, position);
        std::vector<std::int64_t> count =
            symbolic::column_counts(ptr, ind, order, position, parent, size);
        const Ints post = symbolic::postorder(parent, count);
        {
            Ints new_order(n), new_parent(n), place(n);
            std::vector<std::int64_t> new_count(n);
            for (std::int32_t i = 0; i < n; ++i) place[post[i]] = i;
            for (std::int32_t i = 0; i < n; ++i) {
                new_order[i] = order[post[i]];
                new_parent[i] = parent[post[i]] < 0 ? -1 : place[parent[post[i]]];
                new_count[i] = count[post[i]];
            }
            order.swap(new_order);
            parent.swap(new_parent);
            count.swap(new_count);
            renumber();
        }
        // Columns of the same structure follow each other.
        Ints first(1, 0);
        for (std::int32_t j = 1; j < n; ++j)
            if (parent[j - 1] != j || count[j - 1] != count[j] + size[j - 1]) first.push_back(j);
        first.push_back(n);
        const std::size_t n_fronts = first.size() - 1;
        // Where to stop: time for the fronts before the cut plus that for the dense block after it.
        const double *cost = costs.data();
        double columns_left = 0.0, spent = 0.0, best = 0.0;
        for (std::int64_t s : size) columns_left += static_cast<double>(s);
        best = cost[3] * std::pow(columns_left, 3);
        std::size_t cut = 0;
        for (std::size_t f = 0; f < n_fronts; ++f) {
            double width = 0.0, squares = 0.0;
            for (std::int32_t j = first[f]; j < first[f + 1]; ++j) {
                width += static_cast<double>(size[j]);
                squares += static_cast<double>(size[j]) * static_cast<double>(count[j]) *
                           static_cast<double>(count[j]);
            }
            spent += cost[0] + squares * (cost[1] + cost[2] / width);
            columns_left -= width;
            const double total = spent + cost[3] * std::pow(columns_left, 3);
            if (total < best) {
                best = total;
                cut = f + 1;
            }
        }
        const std::int32_t core = first[cut];
        first.resize(cut + 1);
        // Merge a front into the one after it, its parent, where few zeros come in.
        struct Front {
            std::int32_t first, last;
            double width, rows, entries; // scalar columns, rows below, entries without merging
        };
        std::vector<Front> merged;
        for (std::size_t f = 0; f < cut; ++f) {
            Front front{first[f], first[f + 1], 0.0, 0.0, 0.0};
            for (std::int32_t j = front.first; j < front.last; ++j)
                front.width += static_cast<double>(size[j]);
            front.rows = static_cast<double>(count[front.first]) - front.width;
            front.entries = front.width * (front.width + front.rows);
            while (!merged.empty()) {
                const Front &child = merged.back();
                const std::int32_t above = parent[child.last - 1];
                if (above < front.first || above >= front.last) break;
                const double width = child.width + front.width;
                const double all = width * (width + front.rows);
                const double needed = child.entries + front.entries;
                const double zeros = (all - needed) / all;
                const double allowed = width <= 4 ? 0.8 : width <= 16 ? 0.3 : width <= 64 ? 0.1 : 0.05;
                if (zeros > allowed) break;
                front = {child.first, front.last, width, front.rows, needed};
                merged.pop_back();
            }
            merged.push_back(front);
        }
        for (const Front &front : merged) {
            front_first.push_back(front.first);
            entries += front.width * (front.width + front.rows);
        }
        front_first.push_back(core);
        if (entries > most) merged.clear();
        // Rows of a front: neighbours of its nodes and rows of its children, beyond its own.
        Ints front_of(core);
        for (std::size_t f = 0; f < merged.size(); ++f)
            for (std::int32_t j = merged[f].first; j < merged[f].last; ++j)
                front_of[j] = static_cast<std::int32_t>(f);
        std::vector<Ints> children(merged.size());
        Ints mark(n, -1);
        for (std::size_t f = 0; f < merged.size(); ++f) {
            const std::int32_t last = merged[f].last, id = static_cast<std::int32_t>(f);
            const std::size_t begin = below.size();
            auto add = [&](std::int32_t row) {
                if (row < last || mark[row] == id) return;
                mark[row] = id;
                below.push_back(row);
            };
            for (std::int32_t j = merged[f].first; j < last; ++j)
                for (std::int32_t t = ptr[order[j]]; t < ptr[order[j] + 1]; ++t)
                    add(position[ind[t]]);
            for (std::int32_t child : children[f])
                for (std::int64_t t = below_ptr[child]; t < below_ptr[child + 1]; ++t)
                    add(below[t]);
            std::sort(below.begin() + begin, below.end());
            below_ptr.push_back(static_cast<std::int64_t>(below.size()));
            if (below.size() > begin && below[begin] < core)
                children[front_of[below[begin]]].push_back(id);
        }
    }
    return nb::make_tuple(owned_array(std::move(order)), owned_array(std::move(front_first)),
                          owned_array(std::move(below_ptr)), owned_array(std::move(below)),
                          entries);
}

} // namespace kernels
