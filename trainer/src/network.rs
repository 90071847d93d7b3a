//! InceptionV3 (Szegedy et al., CVPR 2016) as data: the layers of Keras applications under the tensor names of timm
//! and torchvision. Training, calibration and export walk the same description.

/// A convolution without bias, batch normalisation (epsilon [`BN_EPSILON`], no scale) and ReLU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Tensor prefix: `{name}.conv.weight`, `{name}.bn.bias`, `{name}.bn.running_mean`, `{name}.bn.running_var`.
    pub name: String,
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Stride, both ways.
    pub stride: usize,
    /// Zero padding above and below, left and right.
    pub padding: [usize; 2],
}

/// One step of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Convolution, batch norm, ReLU.
    Conv(Conv),
    /// 3x3 maximum, stride 2, no padding.
    MaxPool,
    /// 3x3 average, stride 1, padding 1 that is not counted.
    AveragePool,
    /// Branches over one input, concatenated by channel in this order.
    Fork(Vec<Vec<Node>>),
}

/// A named part of the network after which it can be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// `Stem`, `Mixed_5b` … `Mixed_7c`.
    pub name: &'static str,
    /// Steps in order.
    pub nodes: Vec<Node>,
    /// Output channels.
    pub channels: usize,
    /// Side of the square output.
    pub side: usize,
}

impl Block {
    /// True where the block ends in branches, which are concatenated and share one activation scale.
    pub fn forks(&self) -> bool {
        matches!(self.nodes.last(), Some(Node::Fork(_)))
    }
}

/// Epsilon of every batch normalisation.
pub const BN_EPSILON: f32 = 1e-3;

/// The 12 blocks in order. `input_channels` is 3, or 1 with the first layer folded for grey pictures.
pub fn inception_v3(input_channels: usize) -> Vec<Block> {
    let c = |name: &str, input, output, kernel, stride, padding| {
        Node::Conv(Conv { name: name.into(), input, output, kernel, stride, padding })
    };
    let mut blocks = vec![Block {
        name: "Stem",
        nodes: vec![
            c("Conv2d_1a_3x3", input_channels, 32, [3, 3], 2, [0, 0]),
            c("Conv2d_2a_3x3", 32, 32, [3, 3], 1, [0, 0]),
            c("Conv2d_2b_3x3", 32, 64, [3, 3], 1, [1, 1]),
            Node::MaxPool,
            c("Conv2d_3b_1x1", 64, 80, [1, 1], 1, [0, 0]),
            c("Conv2d_4a_3x3", 80, 192, [3, 3], 1, [0, 0]),
            Node::MaxPool,
        ],
        channels: 192,
        side: 35,
    }];
    blocks.extend([block_5("Mixed_5b", 192, 32), block_5("Mixed_5c", 256, 64), block_5("Mixed_5d", 288, 64)]);
    blocks.push(block_6a());
    for (name, width) in [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)] {
        blocks.push(block_6(name, width));
    }
    blocks.push(block_7a());
    blocks.extend([block_7("Mixed_7b", 1280), block_7("Mixed_7c", 2048)]);
    blocks
}

/// Makes stride-1 convolutions of one block whose padding keeps the size.
fn same(block: &'static str) -> impl Fn(&str, usize, usize, [usize; 2]) -> Node {
    move |name, input, output, kernel| {
        let padding = [kernel[0] / 2, kernel[1] / 2];
        Node::Conv(Conv { name: format!("{block}.{name}"), input, output, kernel, stride: 1, padding })
    }
}

/// Makes a 3x3 stride-2 convolution without padding.
fn reduce(block: &'static str, name: &str, input: usize, output: usize) -> Node {
    Node::Conv(Conv {
        name: format!("{block}.{name}"),
        input,
        output,
        kernel: [3, 3],
        stride: 2,
        padding: [0, 0],
    })
}

fn block_5(name: &'static str, input: usize, pool: usize) -> Block {
    let c = same(name);
    let branches = vec![
        vec![c("branch1x1", input, 64, [1, 1])],
        vec![c("branch5x5_1", input, 48, [1, 1]), c("branch5x5_2", 48, 64, [5, 5])],
        vec![
            c("branch3x3dbl_1", input, 64, [1, 1]),
            c("branch3x3dbl_2", 64, 96, [3, 3]),
            c("branch3x3dbl_3", 96, 96, [3, 3]),
        ],
        vec![Node::AveragePool, c("branch_pool", input, pool, [1, 1])],
    ];
    Block { name, nodes: vec![Node::Fork(branches)], channels: 224 + pool, side: 35 }
}

fn block_6a() -> Block {
    let name = "Mixed_6a";
    let c = same(name);
    let branches = vec![
        vec![reduce(name, "branch3x3", 288, 384)],
        vec![
            c("branch3x3dbl_1", 288, 64, [1, 1]),
            c("branch3x3dbl_2", 64, 96, [3, 3]),
            reduce(name, "branch3x3dbl_3", 96, 96),
        ],
        vec![Node::MaxPool],
    ];
    Block { name, nodes: vec![Node::Fork(branches)], channels: 768, side: 17 }
}

fn block_6(name: &'static str, width: usize) -> Block {
    let c = same(name);
    let branches = vec![
        vec![c("branch1x1", 768, 192, [1, 1])],
        vec![
            c("branch7x7_1", 768, width, [1, 1]),
            c("branch7x7_2", width, width, [1, 7]),
            c("branch7x7_3", width, 192, [7, 1]),
        ],
        vec![
            c("branch7x7dbl_1", 768, width, [1, 1]),
            c("branch7x7dbl_2", width, width, [7, 1]),
            c("branch7x7dbl_3", width, width, [1, 7]),
            c("branch7x7dbl_4", width, width, [7, 1]),
            c("branch7x7dbl_5", width, 192, [1, 7]),
        ],
        vec![Node::AveragePool, c("branch_pool", 768, 192, [1, 1])],
    ];
    Block { name, nodes: vec![Node::Fork(branches)], channels: 768, side: 17 }
}

fn block_7a() -> Block {
    let name = "Mixed_7a";
    let c = same(name);
    let branches = vec![
        vec![c("branch3x3_1", 768, 192, [1, 1]), reduce(name, "branch3x3_2", 192, 320)],
        vec![
            c("branch7x7x3_1", 768, 192, [1, 1]),
            c("branch7x7x3_2", 192, 192, [1, 7]),
            c("branch7x7x3_3", 192, 192, [7, 1]),
            reduce(name, "branch7x7x3_4", 192, 192),
        ],
        vec![Node::MaxPool],
    ];
    Block { name, nodes: vec![Node::Fork(branches)], channels: 1280, side: 8 }
}

fn block_7(name: &'static str, input: usize) -> Block {
    let c = same(name);
    let pair =
        |a: &str, b: &str| Node::Fork(vec![vec![c(a, 384, 384, [1, 3])], vec![c(b, 384, 384, [3, 1])]]);
    let branches = vec![
        vec![c("branch1x1", input, 320, [1, 1])],
        vec![c("branch3x3_1", input, 384, [1, 1]), pair("branch3x3_2a", "branch3x3_2b")],
        vec![
            c("branch3x3dbl_1", input, 448, [1, 1]),
            c("branch3x3dbl_2", 448, 384, [3, 3]),
            pair("branch3x3dbl_3a", "branch3x3dbl_3b"),
        ],
        vec![Node::AveragePool, c("branch_pool", input, 192, [1, 1])],
    ];
    Block { name, nodes: vec![Node::Fork(branches)], channels: 2048, side: 8 }
}

/// Every convolution of `nodes` in order.
pub fn convs(nodes: &[Node]) -> Vec<&Conv> {
    let mut all = Vec::new();
    for node in nodes {
        match node {
            Node::Conv(conv) => all.push(conv),
            Node::Fork(branches) => branches.iter().for_each(|branch| all.extend(convs(branch))),
            Node::MaxPool | Node::AveragePool => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    // 94 convolutions and 21.8 million parameters without the top, as Keras counts them.
    #[test]
    fn size_is_that_of_keras() {
        let blocks = inception_v3(3);
        let all: Vec<&Conv> = blocks.iter().flat_map(|block| convs(&block.nodes)).collect();
        assert_eq!(all.len(), 94);
        let weights: usize = all.iter().map(|c| c.input * c.output * c.kernel[0] * c.kernel[1]).sum();
        let norms: usize = all.iter().map(|c| 3 * c.output).sum();
        assert_eq!(weights + norms, 21_802_784);
    }

    #[test]
    fn channels_add_up() {
        fn out(nodes: &[Node], mut channels: usize) -> usize {
            for node in nodes {
                channels = match node {
                    Node::Conv(c) => {
                        assert_eq!(c.input, channels, "{}", c.name);
                        c.output
                    }
                    Node::Fork(branches) => branches.iter().map(|b| out(b, channels)).sum(),
                    Node::MaxPool | Node::AveragePool => channels,
                };
            }
            channels
        }
        let mut channels = 1;
        for block in inception_v3(1) {
            channels = out(&block.nodes, channels);
            assert_eq!(channels, block.channels, "{}", block.name);
        }
    }
}
