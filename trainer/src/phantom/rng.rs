//! Random numbers and smooth noise. SplitMix64 (Steele et al., OOPSLA 2014) is written out here, so that a seed
//! gives the same pictures whatever a library's next version does.

/// A stream of random numbers.
pub struct Rng {
    state: u64,
    spare: Option<f32>,
}

impl Rng {
    /// The stream number `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Self { state: seed, spare: None };
        let mixed = rng.bits() ^ stream.wrapping_mul(0xd134_2543_de82_ef95);
        Self { state: mixed, spare: None }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Even between 0 and 1 (1 left out).
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Even between `low` and `high`.
    pub fn within(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// A whole number from `low` to `high`, both included.
    pub fn whole(&mut self, low: u32, high: u32) -> u32 {
        low + (self.bits() % u64::from(high - low + 1)) as u32
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// Normal, mean 0, deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * self.unit()).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// Noise along a line, mean 0, deviation about 1, smooth over `length` samples.
    pub fn line(&mut self, count: usize, length: f32) -> Vec<f32> {
        let kernel = gauss(length);
        let norm = kernel.iter().map(|k| k * k).sum::<f32>().sqrt();
        // Longer than asked by the kernel, so that the ends are as quiet as the middle.
        let white: Vec<f32> = (0..count + kernel.len() - 1).map(|_| self.normal()).collect();
        white
            .windows(kernel.len())
            .map(|window| window.iter().zip(&kernel).map(|(v, tap)| v * tap).sum::<f32>() / norm)
            .collect()
    }

    /// Noise over a plane, between -1 and 1, with features of about `cell` pixels (x, y).
    pub fn plane(&mut self, width: usize, height: usize, cell: (f32, f32)) -> Vec<f32> {
        let (columns, rows) = ((width as f32 / cell.0) as usize + 2, (height as f32 / cell.1) as usize + 2);
        let knots: Vec<f32> = (0..columns * rows).map(|_| self.within(-1.0, 1.0)).collect();
        let ease = |t: f32| t * t * (3.0 - 2.0 * t);
        let mut plane = Vec::with_capacity(width * height);
        for y in 0..height {
            let fy = y as f32 / cell.1;
            let (j, ty) = (fy as usize, ease(fy.fract()));
            for x in 0..width {
                let fx = x as f32 / cell.0;
                let (i, tx) = (fx as usize, ease(fx.fract()));
                let at = |j: usize| knots[j * columns + i] * (1.0 - tx) + knots[j * columns + i + 1] * tx;
                plane.push(at(j) * (1.0 - ty) + at(j + 1) * ty);
            }
        }
        plane
    }
}

/// A Gaussian kernel of an odd number of taps that sum to 1.
pub fn gauss(sigma: f32) -> Vec<f32> {
    let reach = (3.0 * sigma).ceil().max(1.0) as i32;
    let taps: Vec<f32> = (-reach..=reach).map(|i| (-0.5 * (i as f32 / sigma).powi(2)).exp()).collect();
    let sum: f32 = taps.iter().sum();
    taps.iter().map(|t| t / sum).collect()
}

/// A line blurred by a kernel, its ends repeated.
pub fn blur_line(line: &[f32], kernel: &[f32]) -> Vec<f32> {
    let reach = kernel.len() / 2;
    (0..line.len())
        .map(|i| {
            let at = |k: usize| line[(i + k).saturating_sub(reach).min(line.len() - 1)];
            kernel.iter().enumerate().map(|(k, tap)| tap * at(k)).sum()
        })
        .collect()
}

/// A plane blurred along x and y.
pub fn blur_plane(plane: &[f32], width: usize, sigma: (f32, f32)) -> Vec<f32> {
    let height = plane.len() / width;
    let (kx, ky) = (gauss(sigma.0), gauss(sigma.1));
    let across: Vec<f32> = plane.chunks_exact(width).flat_map(|row| blur_line(row, &kx)).collect();
    let reach = ky.len() / 2;
    let mut out = vec![0.0; plane.len()];
    for (y, row) in out.chunks_exact_mut(width).enumerate() {
        for (k, tap) in ky.iter().enumerate() {
            let from = (y + k).saturating_sub(reach).min(height - 1) * width;
            for (sum, v) in row.iter_mut().zip(&across[from..from + width]) {
                *sum += tap * v;
            }
        }
    }
    out
}
